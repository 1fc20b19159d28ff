"""One network compressed and measured in one call, for notebooks that compare several. Each line is one of ``notebooks/02``'s cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from geta_nb.budget import Budget
from geta_nb.cost import Report
from geta_nb.display.training import training_picture
from geta_nb.geta import GETA
from geta_nb.pipelines.loop import Task
from geta_nb.pipelines.recipes import Recipe
from geta_nb.pipelines.results import measured, pack
from geta_nb.pipelines.run import History, Run


@dataclass(frozen=True)
class Outcome:
    """What one compression gives.

    Attributes:
        geta: the analysed, masked network.
        subnet: the cut one.
        history: snapshots of the run.
        report: its facts, with the dense network's measures beside its own.
        picture: the run, as SVG.
    """

    geta: GETA
    subnet: nn.Module
    history: History
    report: Report
    picture: str


def compress(
    run: Run,
    name: str,
    model: nn.Module,
    example_inputs: Any,
    task: Task,
    *,
    optimizer: type[torch.optim.Optimizer],
    inner: Mapping[str, Any],
    budget: Budget,
    recipe: Recipe,
    epochs: int,
    dense: Mapping[str, float],
    decay: str = "cosine",
    calibrate: Iterable[Any] = (),
    workers: int = 0,
    **options: Any,
) -> Outcome:
    """Make ``model`` quantization-aware, train and prune it, cut it, pack it and measure what the file gives.

    Args:
        name: of this compression inside the run, a file name.
        optimizer: class of the inner optimizer, built with ``inner``.
        dense: measures of the dense network, for the report.
        calibrate: batches for input quantizers.
        **options: of ``GETA``, such as ``example_kwargs``.
    """
    geta = run.geta(name, model, example_inputs, quantize=recipe.quantize, calibrate=calibrate, **options)
    qasso = geta.qasso(optimizer, budget=budget, schedule=recipe.schedule, **recipe.rules, **inner)
    history = run.train(name, model, qasso, task, epochs=epochs, decay=decay, geta=geta, workers=workers)
    subnet = geta.construct_subnet()
    report = measured(geta, subnet, pack(run, subnet, name, task), dense=dense)
    steps = epochs * task.batches.steps_per_epoch
    picture = training_picture(history, recipe.schedule, total_steps=steps, metric=next(iter(dense), "accuracy"))
    (run.folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    return Outcome(geta, subnet, history, report, picture)
