"""The rows of the digits table: what is trained, with which options, and the two functions that make one number.

A row is data; nothing here is tuned per row. The columns are the relative BOPs (paper's counting) that a finished network may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from geta_nb.baselines.narrow import multiply_accumulates
from geta_nb.bench.digits import EPOCHS, IMAGE, compress_digits, digits_net, evaluate, load_digits, paper_schedule, train_dense
from geta_nb.bench.geta_run import PAPER_RULES, allocation, quantizers
from geta_nb.budget import Budget

TARGETS = (0.083, 0.032, 0.016)
"""Relative BOPs with quantized weights; what the official code reached at group sparsity 0.3, 0.5, 0.7."""

ACTIVATION_TARGET = 0.008
"""Relative BOPs with quantized weights and activations."""

OFFICIAL = {1.0: 0.991, 0.083: 0.982, 0.032: 0.952, 0.016: 0.826, ACTIVATION_TARGET: 0.818}
OFFICIAL_SOURCE = (
    "microsoft/geta as of May 2025 on this benchmark, measured before this project began and not by this command; "
    "with activations its subnet does not run, so that accuracy is of the masked network at BOPs not known"
)

WIDTHS = {0.083: 0.5, 0.032: 0.33, 0.016: 0.25}
"""Width multipliers of the fp32 networks set against each target: about 26, 11.5 and 7 % of the multiply-accumulates."""


@dataclass(frozen=True)
class Recipe:
    """How a network is compressed: what differs from the defaults.

    Args:
        label: the row's name in the table.
        rules: options of ``geta.qasso``.
        paper_stages: the official run's schedule instead of ``Schedule.for_steps``.
        targets: the columns that are run with quantized weights.
        activations: also the column with quantized activations.
    """

    label: str
    rules: Mapping[str, Any] = field(default_factory=dict)
    paper_stages: bool = False
    targets: tuple[float, ...] = TARGETS
    activations: bool = False


OURS = Recipe("ours, defaults", activations=True)
PAPER = Recipe("paper's rules and settings", rules=dict(PAPER_RULES), paper_stages=True, activations=True)

_ABLATED = (0.032, 0.016)
ABLATION = {
    "sparing": Recipe("families that have lost groups are not spared", rules={"sparing": 0.0}, targets=_ABLATED),
    "saliency": Recipe("saliency as in the paper", rules={"saliency": "paper"}, targets=_ABLATED),
    "sign": Recipe("saliency averaged with its sign", rules={"saliency": "taylor"}, targets=_ABLATED),
    "forgetting": Recipe("forget rate as in the paper", rules={"forgetting": "paper"}, targets=_ABLATED),
    "schedule": Recipe("schedule as in the official run, no overlap", paper_stages=True, targets=_ABLATED),
    "lr_quant": Recipe("lr_quant 1e-4 instead of 1e-3", rules={"lr_quant": 1e-4}, targets=_ABLATED),
}
"""Our defaults with one of them changed back."""


def dense_run(seed: int, width: float = 1.0, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train one fp32 network from scratch; ``relative_bops`` is its share of the multiply-accumulates of width 1."""
    data = load_digits()
    model = train_dense(data, seed=seed, width=width, epochs=epochs)
    accuracy = evaluate(model, data.test_images, data.test_labels)
    return {"seed": seed, "accuracy": accuracy, "relative_bops": count_macs(width) / count_macs(), "size_bytes": _fp32_bytes(model)}


def compressed_run(
    seed: int,
    relative_bops: float,
    *,
    activations: bool = False,
    rules: Mapping[str, Any] | None = None,
    paper_stages: bool = False,
    epochs: int = EPOCHS,
) -> dict[str, Any]:
    """Compress one network; see :func:`compress_digits`. Arguments and result are plain JSON."""
    data, paper = load_digits(), (rules or {}).get("rules") == "paper"
    return compress_digits(
        seed,
        Budget(relative_bops=relative_bops, allocation=allocation(paper=paper)),
        data=data,
        epochs=epochs,
        quantize=quantizers(paper=paper, activations=activations),
        schedule=paper_schedule(data, epochs=epochs) if paper_stages else None,
        rules=rules,
    )


def count_macs(width: float = 1.0) -> int:
    """Multiply-accumulates of one image through ``digits_net(width)``: output elements times weights per output element."""
    return multiply_accumulates(digits_net(width), torch.zeros(1, *IMAGE))


def _fp32_bytes(model: nn.Module) -> int:
    return 4 * sum(parameter.numel() for parameter in model.parameters())
