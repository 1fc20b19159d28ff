"""The subnet: every group that is exactly zero is cut, and what is left computes what the masked network computes.

Comes in: a trained network with its groups. Goes out: a smaller ``nn.Module``: the model's own classes where these, cut, still compute
the same; else the cut graph. Last stage before the report and the file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from geta_nb.costs import Totals
from geta_nb.native import cut_native
from geta_nb.parametrized import computed, unregister
from geta_nb.quantizers import ActivationQuantizer, Quantizer, WeightQuantizer
from geta_nb.trace import eval_mode
from geta_nb.views import Shown


@dataclass(frozen=True)
class WeightFormat(Shown):
    """How the values of one tensor are coded: value = step_size * integer, ``bits`` wide with its sign.

    Attributes:
        bits: bit width, sign included.
        step_size: d.
        clip_max: q_m.
        exponent: t.
    """

    bits: int
    step_size: float
    clip_max: float
    exponent: float


@dataclass
class SubnetInfo(Shown):
    """What a subnet knows of how it was made; plain data that copies and pickles with it.

    Attributes:
        kind: "native" (the model's own classes) or "graph".
        formats: own parameter name -> format of its codes.
        activation_formats: layer -> format of its quantized input.
        graph: the cut graph of a native subnet (for a graph subnet it is the subnet itself: None).
        dense: costs of the dense fp32 network it came from, the denominator of a second compression too; None when read from a file.
    """

    kind: str
    formats: dict[str, WeightFormat]
    activation_formats: dict[str, WeightFormat] = field(default_factory=dict)
    graph: fx.GraphModule | None = None
    dense: Totals | None = None


def weight_format(quantizer: Quantizer) -> WeightFormat:
    """Return the format of what a quantizer gives out; a bit width between integers is rounded up."""
    bits = float(quantizer.bit_width())
    nearest = round(bits)
    whole = nearest if abs(bits - nearest) < 1e-3 else int(bits) + 1
    return WeightFormat(whole, float(quantizer.step_size), float(quantizer.clip_max), float(quantizer.exponent))


@torch.no_grad()
def set_format(quantizer: Quantizer, form: WeightFormat) -> None:
    """Give a quantizer the numbers of a format."""
    quantizer.set_range(form.clip_max)
    quantizer.exponent.fill_(form.exponent)
    quantizer.step_size.fill_(form.step_size)


def frozen_quantizer(quantizer: ActivationQuantizer) -> ActivationQuantizer:
    """Return a copy of an input quantizer for a subnet."""
    return copy.deepcopy(quantizer)


def dense_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of the model with plain parameters where it had quantized ones; their values are the latent ones."""
    twin = copy.deepcopy(model)
    for module in list(twin.modules()):
        for name, tensors in computed(module).items():
            if any(isinstance(item, WeightQuantizer) for item in tensors):
                unregister(module, name)
    return twin


def native_subnet(
    model: nn.Module, graph: nn.Module, sizes: Mapping[str, set[tuple[int, int]]], same: Callable[[nn.Module], bool]
) -> nn.Module | None:
    """Return the model's own classes cut to the tensors of ``graph``, or None when they cannot compute the same."""
    try:
        dense = dense_copy(model)
    except (RuntimeError, TypeError):
        return None  # a model that cannot be copied keeps its classes to itself
    values = {**dict(graph.named_parameters(remove_duplicate=False)), **dict(graph.named_buffers(remove_duplicate=False))}
    own = {name for name, _ in (*dense.named_parameters(remove_duplicate=False), *dense.named_buffers(remove_duplicate=False))}
    tensors = {name: value.detach().clone() for name, value in values.items() if name in own}
    return cut_native(dense, new_tensors=tensors, size_changes=sizes, check=same)


def outputs_of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the floating output tensors of a module in eval mode, flattened."""
    with torch.no_grad(), eval_mode(module):
        out = module(*args, **kwargs)
    return [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]


def max_difference(left: list[Tensor], right: list[Tensor]) -> float:
    """Return the largest absolute difference between two lists of tensors; infinite when their shapes differ."""
    if [tuple(a.shape) for a in left] != [tuple(b.shape) for b in right]:
        return float("inf")
    return max((float((a.double() - b.double()).abs().max()) for a, b in zip(left, right, strict=True) if a.numel()), default=0.0)


def agrees(module: nn.Module, reference: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a module gives the reference outputs, up to the rounding of another order of summation."""
    found = outputs_of(module, args, kwargs)
    scale = max((float(item.abs().max()) for item in reference if item.numel() and item.is_floating_point()), default=1.0)
    wide = all(item.dtype == torch.float64 for item in reference if item.is_floating_point())
    # n summands in another order differ by about n eps: 1e-9 and 1e-4 leave four orders of magnitude for depth
    return max_difference(found, reference) <= (1e-9 if wide else 1e-4) * max(scale, 1e-3)
