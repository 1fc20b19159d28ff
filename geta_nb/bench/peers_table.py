"""The side by side as a table: run peers on one trained network, and show rows as markdown or HTML."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from geta_nb.bench import digits
from geta_nb.bench.peers import PEERS, Given, Row, run_peer
from geta_nb.display.markup import escape

HEAD = ("", "accuracy", "relative BOPs", "on disk", "latency, 64 images", "analysis", "lines of user code", "")


def trainer(data: digits.Digits, epochs: int, seed: int) -> Callable[..., None]:
    """Return ``train(model, optimizer=None)`` for ``epochs`` of the benchmark: cross-entropy, cosine decay, the same batches for all."""

    def train(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        used = optimizer or torch.optim.Adam(model.parameters(), lr=digits.LEARNING_RATE, weight_decay=digits.WEIGHT_DECAY)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(used, epochs * data.steps_per_epoch)
        generator = torch.Generator().manual_seed(seed)
        if not isinstance(model, torch.fx.GraphModule):
            model.train()  # an exported graph is switched by its owner
        for _ in range(epochs):
            for images, labels in digits.batches(data, generator):
                used.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(images), labels).backward()
                used.step()
                decay.step()

    return train


def compare(
    model: nn.Module,
    data: digits.Digits,
    names: Sequence[str],
    *,
    folder: Path,
    epochs: int,
    relative_bops: float,
    seed: int = 0,
    quick: bool = False,
    official_checkout: str = "",
) -> list[Row]:
    """Let each peer compress its own copy of ``model``; the first row is the dense network.

    Args:
        names: of :data:`PEERS`.
        folder: where the peers' files go.
        epochs: of further training, for each.
        relative_bops: the budget.
        quick: leave out conversions that take long; see ``peers.Given``.
        official_checkout: a clone of the authors' code; "" leaves it out.
    """
    train, steps = trainer(data, epochs, seed), epochs * data.steps_per_epoch
    dense = digits.evaluate(model, data.test_images, data.test_labels)
    rows = [Row("dense fp32", accuracy=dense, relative_bops=1.0, file_bytes=4 * sum(p.numel() for p in model.parameters()))]
    for name in (*names, *(["official"] if official_checkout else [])):
        torch.manual_seed(seed)
        given = Given(copy.deepcopy(model), train, data.train_images, steps, relative_bops, folder / name, quick)
        rows.append(run_peer(name, given, data, **({"checkout": official_checkout} if name == "official" else {})))
    return rows


def cells(row: Row) -> list[str]:
    """Return a row's words, one per entry of :data:`HEAD`; what there is none of is empty."""

    def words(value: float | None, form: str) -> str:
        return "" if value is None else form.format(value)

    return [
        PEERS.get(row.name, row.name),
        words(None if row.accuracy is None else 100 * row.accuracy, "{:.1f} %"),
        words(None if row.relative_bops is None else 100 * row.relative_bops, "{:.2f} %"),
        words(None if row.file_bytes is None else row.file_bytes / 1000, "{:.1f} kB"),
        words(row.latency_ms, "{:.2f} ms") + (f" ({row.runtime})" if row.runtime else ""),
        words(row.analysis_seconds, "{:.1f} s"),
        words(row.user_lines, "{}"),
        row.note,
    ]


def markdown(rows: Iterable[Row]) -> str:
    """Return the table as markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)


def html(rows: Iterable[Row]) -> str:
    """Return the table as HTML."""
    head = "".join(f"<th>{escape(text)}</th>" for text in HEAD)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in cells(row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
