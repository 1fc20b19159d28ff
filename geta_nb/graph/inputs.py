"""Example inputs in one form, and whether the model takes them. Before the trace."""

from __future__ import annotations

import copy
import operator
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.errors import CalibrationError, InputError
from geta_nb.graph.draws import own_draws
from geta_nb.graph.objects import tensors_in
from geta_nb.graph.trace import eval_mode

Net = TypeVar("Net", bound=nn.Module)
Taken = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], bool]
_TAKEN: weakref.WeakKeyDictionary[nn.Module, Taken] = weakref.WeakKeyDictionary()


def note_taken(model: nn.Module, still: Taken) -> None:
    """Let :func:`check_inputs` ask ``still`` whether a model, unchanged, has taken these very inputs before; it holds no model."""
    _TAKEN[model] = still

_GIVEN: weakref.WeakKeyDictionary[nn.Module, tuple[list[Any], list[Tensor]]] = weakref.WeakKeyDictionary()


def outputs_of_check(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor] | None:
    """Return, once, what a model gave for these very inputs when :func:`check_inputs` ran it last; None where it did not."""
    inputs, outputs = _GIVEN.pop(model, ([], []))
    leaves = pytree.tree_leaves((args, kwargs))
    return outputs if outputs and len(inputs) == len(leaves) and all(map(operator.is_, inputs, leaves)) else None


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


def on_cpu(model: Net, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Net, tuple[Any, ...], dict[str, Any]]:
    """Return a model, a copy where it is on an accelerator, and its inputs, for what happens on the CPU alone."""
    if any(tensor.device.type not in ("cpu", "meta") for tensor in (*model.parameters(), *model.buffers())):
        model = copy.deepcopy(model).cpu()
    args, kwargs = pytree.tree_map_only(Tensor, Tensor.cpu, (args, kwargs))
    return model, args, kwargs


def check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the model once in eval mode; raise InputError when it rejects its example inputs, with shapes and its own words.

    What it gives is kept for :func:`outputs_of_check`.
    """
    _GIVEN.pop(model, None)
    if any(parameter.is_meta for parameter in model.parameters()):
        return  # a meta model cannot run on real inputs; export itself will tell
    if (still := _TAKEN.get(model)) is not None and still(model, args, kwargs):
        return
    given = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))  # a cache that the model writes into stays the user's
    try:
        with eval_mode(model), torch.no_grad(), own_draws(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _GIVEN[model] = pytree.tree_leaves((args, kwargs)), tensors_in(model(*given[0], **given[1]))
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


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]
