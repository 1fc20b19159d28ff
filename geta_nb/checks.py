"""Checks of what the façade is given, before anything is touched. In: raw arguments. Out: the same in one form, or a clear error."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from keyword import iskeyword
from typing import Any

import torch
from torch import nn

from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import CalibrationError, ConfigError, PruningSpaceError, ScheduleError, TraceError
from geta_nb.groups import Protected
from geta_nb.qasso import Rules, Schedule
from geta_nb.quantizers import ActivationQuantizer, parameter_tensors
from geta_nb.sharding import is_sharded

_UNWRITABLE = re.compile(r'["\\\x00-\x1f\x7f]')


def check_arguments(model: object, quantize: object, **switches: object) -> None:
    """Check the kinds of the façade's arguments; ``switches`` are those that are True or False.

    Raises:
        ConfigError: no module, no ``QuantConfig``, or no truth value.
        TraceError: a module that ``torch.jit`` compiled, or one inside.
    """
    _check_not_scripted(model)
    if not isinstance(model, nn.Module):
        raise ConfigError("GETA: not a model.", expected="a torch.nn.Module", got=type(model).__name__)
    if quantize is not None and not isinstance(quantize, QuantConfig):
        raise ConfigError(
            "GETA: quantize.", expected="a gt.QuantConfig, or None for pruning only", got=repr(quantize), hint="gt.QuantConfig()"
        )
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigError(f"GETA: {name}.", expected="True or False", got=repr(value))


def _check_not_scripted(model: object) -> None:
    parts = model.named_modules() if isinstance(model, nn.Module) else [("", model)]
    found = next((pair for pair in parts if isinstance(pair[1], (torch.jit.ScriptModule, torch.jit.ScriptFunction))), None)
    if found is not None:
        path, part = found
        name = getattr(part, "original_name", type(part).__name__)
        raise TraceError(
            "GETA: torch.export cannot see into what torch.jit compiled.", at=path or name,
            expected="the nn.Module that torch.jit.script or torch.jit.trace was given", got=f"{type(part).__name__} of {name}",
            hint="gt.GETA(module, ...) first, and torch.jit.trace(geta.construct_subnet(), example_inputs) afterwards",
        )


def check_names(model: nn.Module) -> None:
    """Check that torch can write every name of the model into the code of its graph.

    Raises:
        TraceError: a keyword of Python, or a name with a double quote, a backslash or a control character.
    """
    paths = dict.fromkeys(path for path, _ in (*model.named_modules(), *model.named_parameters(), *model.named_buffers()))
    for path in paths:
        if any(iskeyword(part) or _UNWRITABLE.search(part) for part in path.split(".")):
            raise TraceError(
                "GETA: torch.export cannot write this name into a graph.", at=repr(path),
                expected='no keyword of Python, no ", no backslash, no control character', got=repr(path),
                hint="another name for that module",
            )


def paths_of(name: str) -> list[str]:
    """Return a dotted name and everything above it."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def check_protect(model: nn.Module, patterns: Any) -> tuple[str, ...]:
    """Return the patterns of what is to be protected, each of which matches something.

    Raises:
        ConfigError: no patterns, or one that matches no parameter and no module; the message names a near one.
    """
    if not isinstance(patterns, Iterable):
        raise ConfigError("GETA: protect.", expected="dotted paths, * and ? allowed", got=repr(patterns), hint='protect=["head.*"]')
    given = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    known = dict.fromkeys(path for name in parameter_tensors(model) for path in paths_of(name))
    for pattern in given:
        if not isinstance(pattern, str):
            raise ConfigError("GETA: protect.", expected="dotted paths, * and ? allowed", got=repr(pattern), hint='protect=["head.*"]')
        if not any(fnmatchcase(path, pattern) for path in known):
            near = get_close_matches(pattern, list(known), n=1, cutoff=0.5)
            raise ConfigError(
                "GETA: a protect pattern matches nothing.", at=pattern, expected="the path of a parameter or module, * and ? allowed",
                got="no match", hint=f"did you mean {near[0]!r}?" if near else f"one of {', '.join(list(known)[:4])} ...",
            )
    return given


def is_protected(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches a parameter or a module around it."""
    return any(fnmatchcase(path, pattern) for path in paths_of(name) for pattern in patterns)


def check_space(budget: object, n_groups: int, protected: Sequence[Protected], model: nn.Module) -> None:
    """Check that there is something to prune where a budget asks for it.

    Raises:
        ConfigError: not a budget.
        PruningSpaceError: sparsity is asked for and nothing may be removed.
    """
    if not isinstance(budget, Budget):
        raise ConfigError("GETA: budget.", expected="a gt.Budget", got=repr(budget), hint="gt.Budget(group_sparsity=0.5)")
    if n_groups or not budget.group_sparsity:
        return
    first = protected[0] if protected else None
    raise PruningSpaceError(
        "GETA: nothing in this network may be removed.",
        at=first.path if first else type(model).__name__,
        expected="at least one prunable group",
        got=f"{len(protected)} protected axes" + (f"; the first: {first.reason} ({first.operator})" if first else ""),
        hint="look at geta.protected, or Budget(group_sparsity=0) to quantize only",
    )


def check_run(schedule: object, total_steps: object) -> None:
    """Check that a schedule's constraints hold before the run is over.

    Raises:
        ConfigError: not a schedule, or a length that is no count.
        ScheduleError: the run ends before the cool-down begins.
    """
    if not isinstance(schedule, Schedule):
        raise ConfigError("qasso: schedule.", expected="a gt.Schedule", got=repr(schedule), hint="gt.Schedule.for_steps(total_steps)")
    if total_steps is None:
        return
    if not isinstance(total_steps, int) or isinstance(total_steps, bool) or total_steps < 0:
        raise ConfigError("qasso: total_steps.", expected="a whole number >= 0, or None", got=repr(total_steps), hint="total_steps=1000")
    if schedule.cool_down_start > total_steps:
        raise ScheduleError(
            "qasso: the schedule is longer than the run.", expected=f"at most {total_steps} steps before the cool-down",
            got=f"{schedule.cool_down_start} steps", hint=f"gt.Schedule.for_steps({total_steps})",
        )


def check_rules_for_adapters(rules: Rules, adapted: Collection[str]) -> None:
    """Check that no rule reads gradients or steps of weights that only their adapters move.

    Raises:
        ConfigError: the paper's rules, and adapters.
    """
    if adapted and "paper" in (rules.saliency, rules.forgetting):
        raise ConfigError(
            "qasso: the paper's rules want gradients and steps of the weights themselves, which adapters keep frozen.",
            at=next(iter(adapted)), expected="rules of averages", got=f"saliency={rules.saliency!r}, forgetting={rules.forgetting!r}",
            hint='rules="default"',
        )  # fmt: skip


def check_round_to(round_to: object) -> int:
    """Return ``round_to``, a whole number >= 1.

    Raises:
        ConfigError: something else.
    """
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise ConfigError("construct_subnet: round_to.", expected="a whole number >= 1", got=repr(round_to), hint="round_to=8")
    return round_to


def build_optimizer(optimizer: Any, parameters: Sequence[nn.Parameter], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Return a built optimizer as it is, or a class built over ``parameters`` with ``options``.

    Raises:
        ConfigError: something else, options for a built one or such as the class does not take, no parameters, or LBFGS over shards.
    """
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    if issubclass(kind, torch.optim.LBFGS) and any(is_sharded(p) for p in parameters):
        raise ConfigError(
            "qasso: LBFGS takes all parameters as one vector, which no rank has of a sharded model.", expected="another optimizer",
            got="LBFGS", hint="torch.optim.AdamW",
        )  # fmt: skip
    if isinstance(optimizer, torch.optim.Optimizer):
        if options:
            raise ConfigError("qasso: a built optimizer takes no further arguments.", expected="none", got=", ".join(options))
        return optimizer
    if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
        raise ConfigError(
            "qasso: not an optimizer.", expected="a torch.optim.Optimizer class or object", got=repr(optimizer), hint="torch.optim.AdamW"
        )
    if not parameters:
        raise ConfigError("qasso: the model has no parameters to train.", expected="at least one", got="none")
    try:
        return optimizer(list(parameters), **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"qasso: {optimizer.__name__} rejects its arguments.", got=str(error)) from None


def check_calibrated(activations: Mapping[str, ActivationQuantizer]) -> None:
    """Raise :class:`CalibrationError` where an input quantizer has no range yet."""
    missing = [layer for layer, quantizer in activations.items() if not quantizer.calibrated]
    if missing:
        raise CalibrationError(
            "GETA: input quantizers have no range yet.", at=", ".join(missing[:5]), expected="a calibrated model",
            got=f"{len(missing)} of {len(activations)} without a range", hint="geta.calibrate(batches)",
        )
