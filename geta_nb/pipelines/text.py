"""Text as a task of the pipelines; reading it is ``bench.texts``.

In: rows of token ids. Out: a :class:`~geta_nb.pipelines.loop.Task`.
"""

from __future__ import annotations

from functools import partial

from geta_nb.bench.texts import (
    Rows,
    next_token_loss,
    perplexity,
    read_texts,
    read_tokenizer,
    standard_library,
    token_rows,
    train_tokenizer,
)
from geta_nb.pipelines.batches import Batches
from geta_nb.pipelines.loop import Task

__all__ = [
    "Rows",
    "next_token_loss",
    "perplexity",
    "read_texts",
    "read_tokenizer",
    "standard_library",
    "text_task",
    "token_rows",
    "train_tokenizer",
]


def text_task(rows: Rows, *, batch_size: int, seed: int) -> Task:
    """Return the task of foretelling the next token, measured by perplexity."""
    batches = Batches(len(rows.train), batch_size, rows.draw, seed=seed, drop_last=True)
    return Task(batches, next_token_loss, partial(perplexity, rows=rows))
