"""How good the prediction is: predicted rises of the loss beside real ones: ``python -m geta_nb.bench.predicted`` (minutes).

A network is trained on the digits, its sensitivity is measured on training images, and plans of its front are put into it whole. Their real
rise is that on test images, before any further training. Printed as a table, with the rank correlation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from geta_nb.bench.digits import BATCH, EPOCHS, Digits, calibration_batches, digits_net, load_digits, train
from geta_nb.config import QuantConfig
from geta_nb.geta import GETA
from geta_nb.quantizers import parameter_tensors
from geta_nb.sensitivity import Front, FrontPoint, Losses, Sensitivity, real_rises

PLANS = 10
SAMPLES = 512
Batch = tuple[Tensor, Tensor]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def spread(found: Sensitivity, count: int) -> list[FrontPoint]:
    """Return plans of the front, evenly by the logarithm of cost, between the first that costs something and the last below ln 10."""
    points = [point for point in found.front().points if 0 < point.rise < np.log(10)]
    costs = np.log([point.cost for point in points])
    wanted = np.linspace(costs[0], costs[-1], count)
    return [points[i] for i in dict.fromkeys(int(np.abs(costs - cost).argmin()) for cost in wanted)]


def find(
    data: Digits, seed: int, *, activations: bool, epochs: int = EPOCHS, estimate: str = "measured"
) -> tuple[GETA, Sensitivity]:
    """Train the digits network densely and return it with its sensitivity, found on training images; arguments as for :func:`compare`."""
    torch.manual_seed(seed)
    model = digits_net()
    train(model, torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4), data, epochs=epochs, seed=seed)
    geta = GETA(model.eval(), data.train_images[:2], quantize=QuantConfig(activations=activations))
    geta.calibrate(calibration_batches(data))
    seen = list(zip(data.train_images[:SAMPLES].split(BATCH), data.train_labels[:SAMPLES].split(BATCH), strict=True))
    return geta, geta.sensitivity(seen, loss, estimate=estimate)


def halvings(front: Front, count: int) -> list[float]:
    """Return so many costs to try: the knee of a front, its half, and so on; training repairs much of what lies below the knee."""
    return [float(f"{front.knee.cost / 2**i:.2g}") for i in range(count)]


def compare(seed: int, *, activations: bool, epochs: int = EPOCHS, estimate: str = "measured") -> list[dict[str, Any]]:
    """Return a row for each plan: cost, predicted rise, real rise with its standard error.

    Args:
        seed: of weights and batches.
        activations: inputs are quantized too.
        epochs: of the training before.
        estimate: "measured" or "gradient".
    """
    data = load_digits()
    geta, found = find(data, seed, activations=activations, epochs=epochs, estimate=estimate)
    unseen = list(zip(data.test_images.split(BATCH), data.test_labels.split(BATCH), strict=True))
    plans = spread(found, PLANS)
    losses = Losses(geta.model, loss, unseen, 0)
    rises = real_rises(geta.groups.table, parameter_tensors(geta.model), geta.quantizers, losses, found, plans)
    return [
        {"cost": plan.cost, "predicted": plan.rise, "real": rise.mean, "error": rise.error} for plan, rise in zip(plans, rises, strict=True)
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as Markdown, with the rank correlation below."""
    lines = ["| relative BOPs | predicted rise | real rise |", "| --- | --- | --- |"]
    lines += [f"| {100 * row['cost']:.2f} % | {row['predicted']:.4f} | {row['real']:.4f} ± {row['error'] or 0:.4f} |" for row in rows]
    correlation = spearmanr([row["predicted"] for row in rows], [row["real"] for row in rows]).statistic
    return "\n".join([*lines, "", f"Rank correlation (Spearman): {correlation:.2f}.", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for weights, and one for weights and inputs."""
    parser = argparse.ArgumentParser(description="Predicted beside real rises of the loss, on the digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--estimate", choices=("measured", "gradient"), default="measured")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for activations in (False, True):
        rows = compare(options.seed, activations=activations, epochs=options.epochs, estimate=options.estimate)
        sys.stdout.write(f"{'Weights and inputs' if activations else 'Weights'}, seed {options.seed}\n\n{table(rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
