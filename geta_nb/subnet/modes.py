"""Does a network compute the same in training and in evaluation? A graph was traced in evaluation, so it is asked before it says it trains.

In: a network and example inputs. Out: in words, which of its modules make the difference, measured by running them; nothing where none
does. A graph whose network differs refuses ``train()``: dropout that does not drop and statistics that stay are not what was asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.graph import own_draws, tensors_in
from geta_nb.quantizers import Quantizer

_MOST = 40  # kinds of modules that are tried one by one


def what_differs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return which modules compute something else in training mode, "" where none does; the model stays as it is.

    Random numbers are drawn from a generator of their own.
    """
    try:
        twin = copy.deepcopy(model).eval()
    except (RuntimeError, TypeError, NotImplementedError):
        return "nobody knows, as the model cannot be copied"
    kinds: dict[type[nn.Module], list[nn.Module]] = {}
    for module in twin.modules():
        if not isinstance(module, Quantizer):
            kinds.setdefault(type(module), []).append(module)
    expected = _run(twin, (), args, kwargs)
    if expected is None:
        return "nobody knows, as the model does not run on its example inputs"
    if not _is_other(_run(twin, twin.modules(), args, kwargs), expected):
        return ""
    if len(kinds) > _MOST:
        return "its modules"
    found = [kind.__name__ for kind, modules in kinds.items() if _is_other(_run(twin, modules, args, kwargs), expected)]
    return ", ".join(sorted(found)) or "its modules together"


def _run(model: nn.Module, training: Iterable[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor] | None:
    """Return outputs, and buffers as they are afterwards, with these modules in training mode; None where that fails."""
    modules = list(training)
    before = [(owner, dict(owner._buffers)) for owner in model.modules()]
    try:
        for owner, buffers in before:
            owner._buffers = {name: None if value is None else value.clone() for name, value in buffers.items()}
        for module in modules:
            module.training = True
        with torch.no_grad(), own_draws(seed=0):
            inputs = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
            return tensors_in(model(*inputs[0], **inputs[1])) + list(model.buffers())
    except Exception:  # of one value a channel, where statistics want two
        return None
    finally:
        for module in modules:
            module.training = False
        for owner, buffers in before:
            owner._buffers = buffers


def _is_other(found: list[Tensor] | None, expected: list[Tensor]) -> bool:
    if found is None or [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
        return True
    return not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found, expected, strict=True))
