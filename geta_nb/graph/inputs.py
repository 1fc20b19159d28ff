"""Example inputs in one form, and whether the model takes them. Before the trace."""

from __future__ import annotations

import operator
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.errors import CalibrationError, InputError
from geta_nb.graph.objects import tensors_in
from geta_nb.graph.steps import Recorder, Steps, may_be_long
from geta_nb.graph.trace import eval_mode

Taken = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], bool]
_TAKEN: weakref.WeakKeyDictionary[nn.Module, Taken] = weakref.WeakKeyDictionary()


def note_taken(model: nn.Module, still: Taken) -> None:
    """Let :func:`check_inputs` ask ``still`` whether a model, unchanged, has taken these very inputs before; it holds no model."""
    _TAKEN[model] = still



@dataclass(frozen=True)
class Ran:
    """One run of a model.

    Attributes:
        inputs: the very leaves of what it was given.
        outputs: the tensors that it gave.
        steps: what it did; None where that is not known, or where another run is soon done.
    """

    inputs: list[Any]
    outputs: list[Tensor]
    steps: Steps | None


_RAN: weakref.WeakKeyDictionary[nn.Module, Ran] = weakref.WeakKeyDictionary()


def run_of_check(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ran | None:
    """Return, once, what a model did with these very inputs when :func:`check_inputs` ran it last; None where it did not."""
    ran, leaves = _RAN.pop(model, None), pytree.tree_leaves((args, kwargs))
    if ran is None or not ran.outputs or len(ran.inputs) != len(leaves) or not all(map(operator.is_, ran.inputs, leaves)):
        return None
    return ran


def example_arguments(inputs: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword example inputs in one form.

    Raises:
        InputError: a mapping as positional inputs, keyword inputs that are none, or a tensor without elements.
    """
    if isinstance(inputs, Mapping):
        raise InputError(
            "GETA: example_inputs is a mapping.", expected="a tensor, or a tuple of positional inputs",
            got=f"{type(inputs).__name__} with keys {', '.join(map(str, list(inputs)[:4]))}",
            hint="GETA(model, (), example_kwargs=batch) for keyword inputs; GETA(model, (batch,)) if forward takes the mapping itself",
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InputError("GETA: example_kwargs.", expected="a mapping of keyword inputs", got=type(kwargs).__name__)
    args = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    named = dict(kwargs or {})
    for leaf in pytree.tree_leaves((args, named)):
        if isinstance(leaf, Tensor) and leaf.numel() == 0:
            raise InputError("GETA: an example input is empty.", expected="at least one element", got=f"shape {tuple(leaf.shape)}")
    return args, named


def check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the model once in eval mode; raise InputError when it rejects its example inputs, with shapes and its own words.

    What it does is kept for :func:`run_of_check`.
    """
    _RAN.pop(model, None)
    if any(parameter.is_meta for parameter in model.parameters()):
        return  # a meta model cannot run on real inputs; export itself will tell
    if (still := _TAKEN.get(model)) is not None and still(model, args, kwargs):
        return
    try:
        with eval_mode(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _RAN[model] = _run(model, args, kwargs)
    except CalibrationError:
        return  # quantizers of an earlier GETA that have not seen data: the trace does not need their ranges
    except Exception as error:
        shapes = [tuple(leaf.shape) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        raise InputError(
            "GETA: the model rejects the example inputs.",
            at=type(model).__name__,
            expected="inputs for which model(*example_inputs, **example_kwargs) runs",
            got=f"shapes {shapes}; {type(error).__name__}: {_first_line(error)}",
            hint="pass the tensors you would train with, batch axis first",
        ) from error


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ran:
    """Run a model; where that may be long, note what it does, unless it cannot run while somebody looks (operators of higher order)."""
    leaves = pytree.tree_leaves((args, kwargs))
    for watched in (True, False) if may_be_long(model) else (False,):
        given, named = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))  # a cache that the model writes into stays the user's
        recorder = Recorder((*model.parameters(), *model.buffers()), pytree.tree_leaves((given, named)))
        try:
            with recorder if watched else nullcontext():
                out = model(*given, **named)
        except Exception:
            if not watched:
                raise
        else:
            return Ran(leaves, tensors_in(out), recorder.steps(out) if watched else None)
    raise AssertionError("the last run returns or raises")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]
