"""Question answering as a task: windows as batches, the loss of two positions, answers and their scores; and a generated stand-in.

In: questions in SQuAD's form. Out: a task for ``Run.train``. The stand-in's contexts are sentences about who did what, where and when, made
by a grammar and written to SQuAD's JSON, so that the real reader reads them.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geta_nb.pipelines.batches import Batches
from geta_nb.pipelines.loop import Task
from geta_nb.pipelines.squad import DEV_FILE, TRAIN_FILE, Question, Window, best_answer, make_windows, read_squad, scores, write_squad

_WHO = ["Anna", "Boris", "Carla", "David", "Elena", "Farid", "Greta", "Hugo", "Irene", "Jonas"]
_WHAT = ["a red bicycle", "an old piano", "two small boats", "a wooden table", "the green lamp", "a silver watch"]
_WHERE = ["Lisbon", "Prague", "Nairobi", "Osaka", "Quito", "Oslo", "Dublin", "Hanoi"]
_ASKED = {"where": "Where did {who} buy {what}?", "when": "When did {who} buy {what}?", "what": "What did {who} buy in {where}?"}


@dataclass(frozen=True)
class Answering:
    """Windows of training and held-back questions.

    Args:
        train: training windows.
        held: windows of the questions that are held back.
        questions: these questions.
        pad: token id of padding.
    """

    train: Sequence[Window]
    held: Sequence[Window]
    questions: Sequence[Question]
    pad: int

    def draw(self, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return training windows with their answers."""
        windows = [self.train[int(row)] for row in rows]
        return self.inputs(windows) | {"answers": torch.tensor([window.answer for window in windows])}

    def inputs(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """Return what the network reads, each [B, length]: ids, which of them are no padding, and which are context."""
        ids = torch.tensor([window.ids for window in windows])
        places = torch.arange(ids.shape[1])
        context = torch.stack([places >= window.first for window in windows])
        real = ids != self.pad
        return {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": (context & real).long()}


def answer_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean of the cross-entropies of the first and of the last position."""
    answers = batch["answers"]
    outputs: Any = model(**{name: value for name, value in batch.items() if name != "answers"})
    return (F.cross_entropy(outputs.start_logits, answers[:, 0]) + F.cross_entropy(outputs.end_logits, answers[:, 1])) / 2


def answer_scores(model: nn.Module, *, data: Answering, batch_size: int = 32) -> dict[str, float]:
    """Return F1 and exact match on the held-back questions, in [0, 1]; of a question's windows the surest one answers."""
    device = next(model.parameters()).device
    best: dict[str, tuple[float, str]] = {}
    for begin in range(0, len(data.held), batch_size):
        windows = data.held[begin : begin + batch_size]
        outputs: Any = model(**{name: value.to(device) for name, value in data.inputs(windows).items()})
        for window, starts, ends in zip(windows, outputs.start_logits.cpu(), outputs.end_logits.cpu(), strict=True):
            question = data.questions[window.question]
            found = best_answer(window, question.context, starts, ends)
            best[question.key] = max(best.get(question.key, found), found)
    return scores(data.questions, {key: text for key, (_, text) in best.items()})


def answering_task(data: Answering, *, batch_size: int, seed: int) -> Task:
    """Return the task of finding answers, measured by F1 and exact match."""
    return Task(Batches(len(data.train), batch_size, data.draw, seed=seed), answer_loss, partial(answer_scores, data=data))


def prepare(train: Sequence[Question], held: Sequence[Question], tokenizer: Any, *, length: int, stride: int) -> Answering:
    """Return questions as windows."""
    windows = [make_windows(questions, tokenizer, length=length, stride=stride) for questions in (train, held)]
    return Answering(windows[0], windows[1], held, tokenizer.token_to_id("[PAD]"))


def generated_questions(count: int, *, seed: int, facts: int = 2) -> list[Question]:
    """Return questions about made-up purchases, ``facts`` of them in each context, each by another person of another thing elsewhere."""
    draw = random.Random(seed)
    questions: list[Question] = []
    while len(questions) < count:
        parts = [draw.sample(_WHO, facts), draw.sample(_WHAT, facts), draw.sample(_WHERE, facts)]
        known = [
            {"who": who, "what": what, "where": where, "when": str(draw.randint(1950, 2020))}
            for who, what, where in zip(*parts, strict=True)
        ]
        sentences = ["{who} bought {what} in {where} in {when}.".format(**fact) for fact in known]
        context = " ".join(sentences)
        place = draw.randrange(facts)
        asked = draw.choice(sorted(_ASKED))
        answer = known[place][asked]
        start = context.index(answer, context.index(sentences[place]))
        questions.append(Question(f"q{len(questions)}", context, _ASKED[asked].format(**known[place]), ((answer, start),)))
    return questions


def load_squad(
    data_dir: Path | None, *, seed: int, generated: tuple[int, int] = (3000, 300), most: tuple[int | None, int | None] = (None, None)
) -> tuple[list[Question], list[Question]]:
    """Return training and held-back questions: of SQuAD's two files, or generated ones, written in its form and read back.

    Args:
        data_dir: folder of ``train-v1.1.json`` and ``dev-v1.1.json``.
        generated: how many to generate.
        most: how many to keep of each; None: all.
    """
    if data_dir is not None:
        return read_squad(data_dir / TRAIN_FILE)[: most[0]], read_squad(data_dir / DEV_FILE)[: most[1]]
    with tempfile.TemporaryDirectory() as folder:
        for file, count, stream in ((TRAIN_FILE, generated[0], 2 * seed), (DEV_FILE, generated[1], 2 * seed + 1)):
            write_squad(Path(folder) / file, generated_questions(count, seed=stream))
        return load_squad(Path(folder), seed=seed, most=most)
