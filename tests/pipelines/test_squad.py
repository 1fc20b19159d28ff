"""SQuAD's form: what is read, how answers meet tokens, what is predicted, and the two measures by their definition."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from geta_nb.errors import InputError
from geta_nb.pipelines import squad, squad_task
from geta_nb.pipelines.run import measure

CONTEXT = "The tower was built in Paris by Gustave Eiffel. It opened on 31 March 1889, and it is 330 metres tall today."


@pytest.fixture(scope="module")
def tokenizer():
    texts = [CONTEXT] + [text for q in squad_task.generated_questions(60, seed=0) for text in (q.context, q.text)]
    return squad.train_wordpieces(texts, vocabulary=800)  # all words are whole


def question(answer, key="a"):
    return squad.Question(key, CONTEXT, "Who built the tower?", ((answer, CONTEXT.index(answer)),))


def official_form(answers):
    """A file as the data set has it, with more fields than are read."""
    qas = [{"id": "56be", "question": "Where?", "answers": answers, "is_impossible": False}]
    return {"version": "1.1", "data": [{"title": "Tower", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}


def test_the_data_sets_own_form_is_read(tmp_path):
    answers = [{"answer_start": CONTEXT.index("Paris"), "text": "Paris"}, {"answer_start": CONTEXT.index("in Paris"), "text": "in Paris"}]
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(official_form(answers)))
    (found,) = squad.read_squad(tmp_path / "dev-v1.1.json")
    assert (found.key, found.text, found.context) == ("56be", "Where?", CONTEXT)
    assert [text for text, _ in found.answers] == ["Paris", "in Paris"]


def test_what_is_written_is_read_back(tmp_path):
    questions = squad_task.generated_questions(20, seed=3)
    squad.write_squad(tmp_path / "file.json", questions)
    assert squad.read_squad(tmp_path / "file.json") == questions


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "not a file in SQuAD's form"), ('{"data": [{"paragraphs": [{}]}]}', "not a file in SQuAD's form"),
        (json.dumps(official_form([{"answer_start": 3, "text": "Paris"}])), "(?s)an answer is not in its context.*56be"),
        (json.dumps(official_form([])), "version 2.0"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(tmp_path, body, message):
    (tmp_path / "file.json").write_text(body)
    with pytest.raises(InputError, match=message):
        squad.read_squad(tmp_path / "file.json")
    with pytest.raises(InputError, match="cannot be read"):
        squad.read_squad(tmp_path / "nowhere.json")


@pytest.mark.parametrize("length", [24, 40, 128])
def test_windows_cover_the_context_and_their_answers_are_the_answers(tokenizer, length):
    """The text of the answer's tokens is the answer, in at least one window; windows overlap by the stride and miss nothing."""
    for answer in ("Paris", "Gustave Eiffel", "31 March 1889", "today"):
        asked = question(answer)
        windows = squad.make_windows([asked], tokenizer, length=length, stride=6)
        assert all(len(window.ids) == length for window in windows)
        covered = {position for window in windows for a, b in window.offsets for position in range(a, b)}
        assert covered == {i for i, character in enumerate(CONTEXT) if not character.isspace()}
        with_answer = [window for window in windows if window.answer != (0, 0)]
        assert with_answer
        for window in with_answer:
            first, last = (position - window.first for position in window.answer)
            assert CONTEXT[window.offsets[first][0] : window.offsets[last][1]] == answer


def test_a_window_is_cls_question_sep_context_sep_padding(tokenizer):
    (window,) = squad.make_windows([question("Paris")], tokenizer, length=128, stride=6)
    tokens = [tokenizer.id_to_token(token) for token in window.ids]
    assert tokens[0] == "[CLS]" and tokens[window.first - 1] == "[SEP]" and tokens[window.first + window.count] == "[SEP]"
    assert set(tokens[window.first + window.count + 1 :]) == {"[PAD]"}
    assert len(window.offsets) == window.count


def test_windows_without_room_are_refused(tokenizer):
    with pytest.raises(InputError, match="no room for the context"):
        squad.make_windows([question("Paris")], tokenizer, length=16, stride=6)


def test_the_likeliest_span_never_ends_before_it_starts_and_is_not_too_long(tokenizer):
    (window,) = squad.make_windows([question("Gustave Eiffel")], tokenizer, length=128, stride=6)
    starts, ends = torch.zeros(128), torch.zeros(128)
    starts[window.answer[0]], ends[window.answer[1]] = 5.0, 5.0
    ends[window.first] = 9.0  # tempting, but before the start
    starts[0] = ends[0] = 50.0  # [CLS] and the question are no answer
    score, text = squad.best_answer(window, CONTEXT, starts, ends)
    assert (score, text) == (10.0, "Gustave Eiffel")
    first, last = window.first, window.first + window.count - 1
    far = torch.zeros(128)
    far[last] = 5.0
    _, text = squad.best_answer(window, CONTEXT, torch.zeros(128).index_fill(0, torch.tensor([first]), 5.0), far, longest=3)
    assert len(text) < len(CONTEXT)


@pytest.mark.parametrize(
    ("found", "answer", "exact", "f1"),
    [
        ("the Eiffel Tower!", "Eiffel tower", 1, 1),
        ("in Paris", "Paris", 0, 2 / 3),
        ("Gustave", "Gustave Eiffel", 0, 2 / 3),
        ("paris paris", "Paris", 0, 2 / 3),  # a word counts as often as both have it
        ("Rome", "Paris", 0, 0),
        ("the", "a", 1, 1),  # nothing is left of either
        ("", "Paris", 0, 0),
    ],
)
def test_scores_of_one_answer(found, answer, exact, f1):
    assert squad.exact_match(found, answer) == exact
    assert squad.f1(found, answer) == pytest.approx(f1, rel=1e-12)


def test_scores_take_the_best_annotator_and_count_a_missing_prediction_as_zero():
    several = squad.Question("a", CONTEXT, "?", (("Rome", 0), ("Paris", 0)))
    assert squad.scores([several, question("today", "b")], {"a": "Paris"}) == {"f1": 0.5, "exact_match": 0.5}


class Oracle(nn.Module):
    """Knows where every answer is; unsure in windows that do not have it."""

    def __init__(self, windows):
        super().__init__()
        self.known = {window.ids: window.answer for window in windows}
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask, token_type_ids):
        assert attention_mask.sum() >= token_type_ids.sum() > 0
        logits = torch.zeros(2, *input_ids.shape)
        for row, ids in enumerate(input_ids.tolist()):
            for end, place in enumerate(self.known[tuple(ids)]):
                logits[end, row, place] = 9.0

        class Outputs:
            start_logits, end_logits = logits + self.weight

        return Outputs


def test_a_network_that_knows_all_answers_scores_one(tokenizer):
    asked = {"Paris": "Where was the tower built?", "31 March 1889": "When was it opened?"}
    questions = [replace(question(answer, answer), text=text) for answer, text in asked.items()]
    data = squad_task.prepare(questions, questions, tokenizer, length=24, stride=6)
    assert len(data.held) > len(questions), "some contexts take several windows"
    task = squad_task.answering_task(data, batch_size=3, seed=0)
    assert measure(Oracle(data.held), task.evaluate) == {"f1": 1.0, "exact_match": 1.0}


def test_the_loss_is_that_of_both_ends(tokenizer):
    data = squad_task.prepare([question("Paris")], [question("Paris")], tokenizer, length=128, stride=6)
    batch = data.draw(torch.tensor([0]), torch.Generator())
    sure, unsure = Oracle(data.train), Oracle([])
    unsure.known = {window.ids: (0, 0) for window in data.train}
    # 128 logits, one of them 9: -log(e^9 / (e^9 + 127)) = 0.0155
    assert squad_task.answer_loss(sure, batch).item() == pytest.approx(0.01555, abs=1e-4)
    assert squad_task.answer_loss(unsure, batch).item() > 9


def test_generated_questions_have_their_answers_and_seeds():
    questions = squad_task.generated_questions(200, seed=1)
    assert all(q.context[start : start + len(text)] == text for q in questions for text, start in q.answers)
    assert questions == squad_task.generated_questions(200, seed=1) != squad_task.generated_questions(200, seed=2)
    for q in questions:  # the right person's purchase, not the other one's
        who = q.text.split()[2]
        sentence = next(part for part in q.context.split(". ") if part.startswith(who))
        assert q.answers[0][0] in sentence


def test_real_files_are_read_when_their_folder_is_given(tmp_path):
    for file, seed in ((squad_task.TRAIN_FILE, 1), (squad_task.DEV_FILE, 2)):
        squad.write_squad(tmp_path / file, squad_task.generated_questions(5, seed=seed))
    train, held = squad_task.load_squad(tmp_path, seed=0)
    assert train == squad_task.generated_questions(5, seed=1) and held == squad_task.generated_questions(5, seed=2)


def test_a_tokenizer_of_these_texts_is_always_the_same_and_can_write_them_all(tokenizer):
    """A run that goes on makes its tokenizer again: other ids would be another language."""
    texts = [q.context for q in squad_task.generated_questions(100, seed=0)]
    first, second = (squad.train_wordpieces(texts, vocabulary=90) for _ in range(2))
    assert first.get_vocab() == second.get_vocab() and first.get_vocab_size() == 90
    tokens = first.encode(texts[0], add_special_tokens=False)
    assert "[UNK]" not in tokens.tokens and any(token.startswith("##") for token in tokens.tokens)
    assert first.decode(tokens.ids).replace(" ", "") == texts[0].lower().replace(" ", "")
    assert [first.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == list(range(5))
    assert "gustave" in tokenizer.get_vocab()


def test_a_tokenizer_is_read_from_either_of_its_files(tokenizer, tmp_path):
    with pytest.raises(InputError, match="no tokenizer there"):
        squad.read_wordpieces(tmp_path)
    tokenizer.save_model(str(tmp_path))
    wanted = tokenizer.encode(CONTEXT, add_special_tokens=False).ids
    assert squad.read_wordpieces(tmp_path).encode(CONTEXT, add_special_tokens=False).ids == wanted
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert squad.read_wordpieces(tmp_path).encode(CONTEXT, add_special_tokens=False).ids == wanted
