"""SQuAD v1.1: its JSON read, its answers aligned with tokens in sliding windows, and its two measures, exact match and F1.

In: ``train-v1.1.json`` and ``dev-v1.1.json`` (Rajpurkar et al. 2016, arXiv:1606.05250), a tokenizer of ``tokenizers``. Out: windows to
train on, predictions, scores. The measures are defined as in the data set's evaluation script, and written from that definition.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geta_nb._extra import load
from geta_nb.errors import InputError

TRAIN_FILE, DEV_FILE = "train-v1.1.json", "dev-v1.1.json"


@dataclass(frozen=True)
class Question:
    """One question about a text.

    Attributes:
        key: its id.
        context, text: the text, and what is asked about it.
        answers: (answer, character at which it starts) of each annotator, at least one.
    """

    key: str
    context: str
    text: str
    answers: tuple[tuple[str, int], ...]


def read_squad(file: str | Path) -> list[Question]:
    """Return the questions of a file in SQuAD's form.

    Raises:
        InputError: no such file, not of that form, or an answer that is not where the file says.
    """
    try:
        articles = json.loads(Path(file).read_text(encoding="utf-8"))["data"]
        questions = [
            Question(str(qa["id"]), paragraph["context"], qa["question"], tuple((a["text"], a["answer_start"]) for a in qa["answers"]))
            for article in articles
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
        ]
    except OSError as error:
        raise InputError("read_squad: the file cannot be read.", at=file, expected=f"{TRAIN_FILE} or {DEV_FILE}", got=str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("read_squad: not a file in SQuAD's form.", at=file, expected="data, paragraphs, qas", got=repr(error)) from error
    for question in questions:
        wrong = [text for text, start in question.answers if question.context[start : start + len(text)] != text]
        if wrong or not question.answers:
            got = repr(wrong[0]) if wrong else "no answer (version 2.0 has such questions, 1.1 has not)"
            raise InputError("read_squad: an answer is not in its context.", at=f"{file}, question {question.key}", got=got)
    return questions


def write_squad(file: str | Path, questions: Sequence[Question]) -> None:
    """Write questions in SQuAD's form, one paragraph per context."""
    paragraphs: dict[str, list[Any]] = {}
    for question in questions:
        answers = [{"text": text, "answer_start": start} for text, start in question.answers]
        paragraphs.setdefault(question.context, []).append({"id": question.key, "question": question.text, "answers": answers})
    body = [{"context": context, "qas": qas} for context, qas in paragraphs.items()]
    Path(file).write_text(json.dumps({"version": "1.1", "data": [{"title": "all", "paragraphs": body}]}), encoding="utf-8")


def read_wordpieces(folder: str | Path) -> Any:
    """Return the tokenizer of a folder's ``tokenizer.json`` or ``vocab.txt`` (lower-cased word pieces).

    Raises:
        InputError: neither is there.
    """
    tokenizers, place = load("tokenizers", "bench"), Path(folder)
    if (place / "tokenizer.json").exists():
        tokenizer = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    if (place / "vocab.txt").exists():
        return tokenizers.BertWordPieceTokenizer(str(place / "vocab.txt"), lowercase=True)
    raise InputError("read_wordpieces: no tokenizer there.", at=place, expected="tokenizer.json or vocab.txt")


def train_wordpieces(texts: Sequence[str], *, vocabulary: int) -> Any:
    """Return a lower-cased word-piece tokenizer with BERT's special tokens: all characters of these texts, and their most frequent words.

    The trainer of ``tokenizers`` numbers pieces in another order each time; a run that goes on would read other ids. This one does not.

    Args:
        vocabulary: number of pieces; characters are kept even beyond it.
    """
    tokenizers = load("tokenizers", "bench")
    lower, split = tokenizers.normalizers.BertNormalizer(lowercase=True), tokenizers.pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(lower.normalize_str(text)))
    characters = sorted({character for word in words for character in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{character}" for character in characters)]
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    pieces += frequent[: max(0, vocabulary - len(pieces))]
    return tokenizers.BertWordPieceTokenizer({piece: number for number, piece in enumerate(pieces)}, lowercase=True)


@dataclass(frozen=True)
class Window:
    """One question with as much of its context as fits: ``[CLS] question [SEP] part of the context [SEP]``, padded.

    Attributes:
        question: index into the questions.
        ids: token ids, [length].
        first: position of the first token of the context's part; ``count`` of them follow one another.
        offsets: (start, end) in the context's characters of each of these tokens.
        answer: first and last position of the answer's tokens; (0, 0), the [CLS], when it is not in this window.
    """

    question: int
    ids: tuple[int, ...]
    first: int
    count: int
    offsets: tuple[tuple[int, int], ...]
    answer: tuple[int, int]


def make_windows(questions: Sequence[Question], tokenizer: Any, *, length: int, stride: int) -> list[Window]:
    """Return all windows of all questions.

    Args:
        length: tokens in a window, padding and special tokens included.
        stride: tokens that two windows of one context share.

    Raises:
        InputError: a length that leaves no room for new context.
    """
    if not 0 <= stride < length // 2 - 3:
        raise InputError("make_windows: no room for the context.", expected="0 <= stride < length / 2 - 3", got=f"{stride}, {length}")
    special = [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[PAD]")]
    contexts: dict[str, Any] = {}
    windows = []
    for index, question in enumerate(questions):
        if question.context not in contexts:
            contexts[question.context] = tokenizer.encode(question.context, add_special_tokens=False)
        asked = tokenizer.encode(question.text, add_special_tokens=False).ids[: length // 2 - 3]
        windows += _windows_of(index, question, asked, contexts[question.context], special, length, stride)
    return windows


def _windows_of(
    index: int, question: Question, asked: list[int], context: Any, special: Sequence[int], length: int, stride: int
) -> list[Window]:
    cls, sep, pad = special
    room, first = length - len(asked) - 3, len(asked) + 2
    text, start = question.answers[0]
    windows: list[Window] = []
    for begin in range(0, max(len(context.ids) - stride, 1), room - stride):
        ids, offsets = context.ids[begin : begin + room], tuple(context.offsets[begin : begin + room])
        row = [cls, *asked, sep, *ids, sep]
        inside = [i for i, (a, b) in enumerate(offsets) if a < start + len(text) and b > start]
        whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= start + len(text)
        answer = (first + inside[0], first + inside[-1]) if whole else (0, 0)
        windows.append(Window(index, (*row, *[pad] * (length - len(row))), first, len(ids), offsets, answer))
    return windows


def best_answer(window: Window, context: str, starts: Tensor, ends: Tensor, *, longest: int = 30) -> tuple[float, str]:
    """Return the likeliest answer of a window and its score: the largest start + end logit with 0 <= end - start < ``longest`` tokens.

    Args:
        starts, ends: logits of the window's positions, [length].
    """
    inside = slice(window.first, window.first + window.count)
    scores = starts[inside, None] + ends[None, inside]
    allowed = torch.ones_like(scores, dtype=torch.bool).triu().tril(longest - 1)
    place = int(scores.masked_fill(~allowed, -torch.inf).argmax())
    first, last = divmod(place, window.count)
    return float(scores[first, last]), context[window.offsets[first][0] : window.offsets[last][1]]


def normalised(answer: str) -> str:
    """Return an answer lower-cased, without punctuation, articles and repeated space.

    >>> normalised("The  Eiffel Tower!")
    'eiffel tower'
    """
    bare = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(found: str, answer: str) -> float:
    """Return 1 when both are the same, normalised."""
    return float(normalised(found) == normalised(answer))


def f1(found: str, answer: str) -> float:
    """Return the harmonic mean of precision and recall over normalised words.

    >>> round(f1("the red car", "a car"), 3)
    0.667
    """
    mine, theirs = normalised(found).split(), normalised(answer).split()
    shared = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * shared / (len(mine) + len(theirs)) if shared else float(mine == theirs)


def scores(questions: Sequence[Question], found: Mapping[str, str]) -> dict[str, float]:
    """Return the means over questions of the best score against any annotator, in [0, 1]; a question without a prediction scores 0."""
    measures = {"f1": f1, "exact_match": exact_match}
    return {
        name: sum(max(measure(found[q.key], a) for a, _ in q.answers) if q.key in found else 0.0 for q in questions) / len(questions)
        for name, measure in measures.items()
    }
