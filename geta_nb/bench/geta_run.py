"""One run of GETA on a benchmark: train with QASSO from scratch, cut, measure. What the digits and the fashion table share.

In: a fresh network and how it is trained (:class:`Run`), a budget, options. Out: JSON-able facts of the finished network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geta_nb.baselines.space import OVER_BUDGET
from geta_nb.baselines.task import Task, fit
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import BudgetError, ConfigError
from geta_nb.geta import GETA
from geta_nb.qasso import QASSO, Rules, Schedule

PAPER_RULES: Mapping[str, Any] = {"rules": "paper", "lr_quant": 1e-3}
HIGHEST = 16
"""Bits at the start."""


@dataclass(frozen=True)
class Run:
    """How a network is trained and measured.

    Args:
        example: two inputs, for tracing.
        calibration: batches of training inputs, for the ranges of input quantizers.
        total_steps: optimizer steps of the run.
        train: (network, optimizer) -> None, all of it.
        evaluate: network -> accuracy in [0, 1].
        inner: arguments of Adam.
    """

    example: Tensor
    calibration: Iterable[Tensor]
    total_steps: int
    train: Callable[[nn.Module, torch.optim.Optimizer], None]
    evaluate: Callable[[nn.Module], float]
    inner: Mapping[str, Any]


def official_schedule(total_steps: int) -> Schedule:
    """Return the stages of the official code's digits run, by share: projection in 0-8 of 30, pruning in 8-18, five periods each."""
    projection, joint = (max(5, part * total_steps // 30) for part in (8, 10))
    return Schedule(0, projection, 5, joint, 5, 2)


def _late(total_steps: int) -> Schedule:
    """Return the stages that were the default before: projection until 20 %, pruning from 10 to 50 % of the run in five portions."""
    warmup, begin, end = (max(1, round(share * total_steps)) for share in (0.01, 0.1, 0.5))
    projection_end = max(warmup + 6, round(0.2 * total_steps))
    return Schedule(warmup, projection_end - warmup, 6, max(end, projection_end + 5) - begin, 5, 2, joint_start=begin)


STAGES: Mapping[str, Callable[[int], Schedule]] = {"official": official_schedule, "late": _late}
"""Other stages than the default's: length of the run -> schedule."""


def schedule_down_to(lowest_bits: int, usual: Schedule) -> Schedule:
    """Return a schedule with larger falls, so that the upper bound of the bits ends at ``lowest_bits``."""
    values = usual.to_dict() | {"bit_reduction": -(-(HIGHEST - lowest_bits) // usual.projection_periods)}
    return Schedule(**values)


def quantizers(*, paper: bool, activations: bool) -> QuantConfig:
    """Return the paper's quantizers or the package's defaults."""
    return QuantConfig.paper(activations=activations) if paper else QuantConfig(activations=activations)


def allocation(*, paper: bool, one_bound: bool = False) -> str:
    """Return how a cost target is split between layers: by the paper all have one range; ``one_bound``: by cost alone, down to it."""
    return "uniform" if paper else "cost" if one_bound else "joint"


def _options(rules: Mapping[str, Any]) -> dict[str, Any]:
    own = {field.name for field in fields(Rules)} - {"saliency", "forgetting"}
    options = {name: value for name, value in rules.items() if name not in own}
    changed = {name: value for name, value in rules.items() if name in own}
    return options | {"rules": Rules(**changed)} if changed else options


class Trained(NamedTuple):
    """A network at the end of its run: analysed and masked, its optimizer, and the seconds that training took."""

    geta: GETA
    optimizer: QASSO
    seconds: float


def train(
    model: nn.Module,
    run: Run,
    budget: Budget,
    *,
    quantize: QuantConfig | None = None,
    schedule: Schedule | None = None,
    rules: Mapping[str, Any] | None = None,
) -> Trained:
    """Train ``model`` with QASSO, in place.

    Args:
        quantize: default ``QuantConfig()``, weights only.
        schedule: default ``Schedule.for_steps(total)``.
        rules: further options of ``geta.qasso``, such as :data:`PAPER_RULES`, or options of ``Rules`` by name; default none.
    """
    geta = GETA(model, run.example, quantize=quantize or QuantConfig())
    if quantize is not None and quantize.activations:
        geta.calibrate(run.calibration)
    schedule = schedule or Schedule.for_steps(run.total_steps)
    optimizer = geta.qasso(torch.optim.Adam, budget=budget, schedule=schedule, **run.inner, **_options(rules or {}))
    started = time.perf_counter()
    run.train(model, optimizer)
    return Trained(geta, optimizer, time.perf_counter() - started)


def compress(model: nn.Module, run: Run, budget: Budget, *, masked: bool = False, **options: Any) -> dict[str, Any]:
    """Train ``model`` with QASSO, in place, cut it, and measure what came out.

    Args:
        masked: measure the masked network too.
        **options: of :func:`train`.

    Returns:
        ``accuracy`` of the cut network, ``masked_accuracy`` if asked for, ``seconds`` of training, ``predicted_rise`` where bits and groups
        shared a price, and the report's facts for a table.
    """
    trained = train(model, run, budget, **options)
    subnet = trained.geta.construct_subnet()
    facts = trained.geta.report(subnet).to_dict()
    kept = ("max_abs_difference", "module_kind", "group_sparsity", "relative_bops", "relative_bops_full", "macs", "size_bytes")
    measured = {"seconds": trained.seconds, "accuracy": run.evaluate(subnet)}
    measured |= {"masked_accuracy": run.evaluate(trained.geta.model)} if masked else {}
    planned = {"predicted_rise": facts["predicted_rise"]} if facts["predicted_rise"] is not None else {}
    return measured | planned | {key: facts[key] for key in (*kept, "bit_widths", "activation_bit_widths")}


class Settings(NamedTuple):
    """What :func:`train` needs besides a network."""

    run: Run
    budget: Budget
    quantize: QuantConfig
    schedule: Schedule
    rules: Mapping[str, Any]


def settings_of(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, bits: int | None = None, paper: bool = False, **changed: Any
) -> Settings:
    """Return how GETA compresses a task's network; arguments as for :func:`compress_task`.

    Raises:
        ConfigError: no such option.
    """
    total = task.epochs * task.steps_per_epoch
    run = Run(
        example=task.example,
        calibration=task.calibration.split(64),
        total_steps=total,
        train=lambda model, optimizer: fit(task, model, task.epochs, seed=seed, optimizer=optimizer),
        evaluate=task.evaluate,
        inner={"lr": task.learning_rate, "weight_decay": task.weight_decay},
    )
    stages = changed.pop("stages", "official" if paper else None)
    ranges: dict[str, Any] = {} if bits is None else dict.fromkeys(("bit_range", "activation_bit_range"), (bits, HIGHEST))
    of_budget, of_quantizers, of_optimizer = _sorted_options(changed)
    schedule = STAGES[stages](total) if stages else Schedule.for_steps(total)
    schedule = schedule if bits is None else schedule_down_to(bits, schedule)
    how = allocation(paper=paper, one_bound=bits is not None)
    budget = Budget(relative_bops=relative_bops, **ranges, **{"allocation": how, **of_budget})
    quantize = replace(quantizers(paper=paper, activations=activations), **of_quantizers)
    return Settings(run, budget, quantize, schedule, {**(PAPER_RULES if paper else {}), **of_optimizer})


def compress_task(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, bits: int | None = None, paper: bool = False, **changed: Any
) -> dict[str, Any]:
    """Compress a task's network with GETA; facts as those of ``baselines.task.Result``.

    Args:
        bits: no layer may end with fewer, weights and (with ``activations``) inputs; None: the package's default.
        paper: the paper's rules and the official run's settings instead of the defaults.
        changed: options in place of the defaults, by name: of ``QuantConfig``, ``Rules``, ``Budget`` or ``geta.qasso``; ``stages``: a
            name of :data:`STAGES`.

    Raises:
        BudgetError: out of reach, or, a defect, over the budget.
        ConfigError: no such option.
    """
    torch.manual_seed(seed)
    run, budget, quantize, schedule, rules = settings_of(
        task, relative_bops, seed=seed, activations=activations, bits=bits, paper=paper, **changed
    )
    facts = compress(task.build(), run, budget, quantize=quantize, schedule=schedule, rules=rules)
    notes: dict[str, Any] = {key: facts[key] for key in ("max_abs_difference", "predicted_rise") if key in facts}
    return checked(as_result(facts, notes), relative_bops, run.total_steps)


def as_result(facts: Mapping[str, Any], notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report's facts and an accuracy as those of ``baselines.task.Result`` are named."""
    return {
        "accuracy": facts["accuracy"],
        "relative_bops": facts["relative_bops"],
        "macs": facts["macs"]["subnet"] / facts["macs"]["dense"],
        "size_bytes": facts["size_bytes"]["subnet"],
        "weight_bits": facts["bit_widths"],
        "activation_bits": facts["activation_bit_widths"],
        "notes": {"group_sparsity": facts["group_sparsity"], **notes},
    }


def checked(result: dict[str, Any], relative_bops: float, steps: int) -> dict[str, Any]:
    """Return a result that is within its budget.

    Raises:
        BudgetError: it is not, which is a defect.
    """
    if result["relative_bops"] > relative_bops:
        got = f"{result['relative_bops']:.6g} after {steps} steps"
        raise BudgetError(f"GETA: {OVER_BUDGET}", expected=f"<= {relative_bops:.6g}", got=got)
    return result


def _sorted_options(changed: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the options of the budget, of the quantizers and of the optimizer."""
    tables = [{field.name for field in fields(owner)} for owner in (Budget, QuantConfig, Rules)]
    names: list[set[str]] = [tables[0], tables[1], tables[2] | {"lr_quant"}]
    if unknown := changed.keys() - set().union(*names):
        raise ConfigError("GETA: no such option.", got=", ".join(sorted(unknown)), hint="granularity, refit, allocation, lr_quant ...")
    budget, quantize, optimizer = ({name: value for name, value in changed.items() if name in known} for known in names)
    return budget, quantize, optimizer
