"""The settings of the paper's experiments, scaled to runs of any length, and ours beside them.

Source of the paper's: Qu et al. 2025, arXiv:2502.16638, settings table as transcribed. Bit reduction 2, bits 4 to 16, exponents from 1,
learning rate of the quantizers 1e-4. Networks that are not in that table have the settings of the nearest one, which their notebooks say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geta_nb.config import QuantConfig
from geta_nb.errors import ConfigError
from geta_nb.qasso import Schedule

EPOCHS: Mapping[str, int] = {"vgg7": 200, "resnet20": 350, "resnet50": 120, "bert": 10}
"""Length of the published runs, in epochs."""


def paper_schedule(name: str, total_steps: int) -> Schedule:
    """Return the published stages of a network as the same shares of a run of any length.

    With ``total_steps`` = published epochs * steps per epoch this is exactly ``Schedule.paper(name, steps_per_epoch)``. A very short run
    gets at least one step for each period.

    Raises:
        ScheduleError: no such network.
        ConfigError: fewer steps than periods.
    """
    published = Schedule.paper(name, 1_000)
    length = EPOCHS[name] * 1_000
    stages = {"projection": published.projection_periods, "joint": published.joint_periods}
    steps = {stage: max(least, round(getattr(published, f"{stage}_steps") * total_steps / length)) for stage, least in stages.items()}
    if sum(steps.values()) >= total_steps:
        raise ConfigError(
            "paper_schedule: the run is too short for the paper's periods.", expected=f"more than {sum(steps.values())} steps",
            got=f"{total_steps} steps", hint='settings="ours"',
        )  # fmt: skip
    return Schedule(
        0, steps["projection"], published.projection_periods, steps["joint"], published.joint_periods, published.bit_reduction
    )


@dataclass(frozen=True)
class Recipe:
    """When to compress, by which rules and with which quantizers.

    ``gt.GETA(..., quantize=recipe.quantize)`` and ``geta.qasso(..., schedule=recipe.schedule, **recipe.rules)``.
    """

    schedule: Schedule
    rules: Mapping[str, Any]
    quantize: QuantConfig


def find_recipe(settings: str, name: str, total_steps: int, *, activations: bool = False) -> Recipe:
    """Return stages, rules and quantizers for a run.

    Args:
        settings: ``"paper"``: the published stages, saliency, forget rate and quantizers; ``"ours"``: what measures best here (README,
            How good).
        name: the network whose published stages are meant.
        total_steps: optimizer steps of the whole run.
        activations: inputs are quantized too.

    Raises:
        ConfigError: no such settings, or a run that is too short.
    """
    if settings == "paper":
        rules = {"rules": "paper", "lr_quant": 1e-4}
        return Recipe(paper_schedule(name, total_steps), rules, QuantConfig.paper(activations=activations))
    if settings == "ours":
        return Recipe(Schedule.for_steps(total_steps), {}, QuantConfig(activations=activations))
    raise ConfigError("recipe: no such settings.", expected="'paper' or 'ours'", got=repr(settings))
