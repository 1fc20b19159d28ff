"""Weights that parametrizations of the model's own compute (``weight_norm``, ``spectral_norm``, anybody's): values, and marks on them.

In: a module whose weight is computed anew at every read. Out: what its quantizer is given; while a trace is made, a mark behind the last
parametrization; and, for a cut, the computed weight as a plain parameter in its place. The quantizer comes last, so that a device needs
nothing of what computes the weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import cast

import torch
from torch import Tensor, nn

from geta_nb.graph import mark
from geta_nb.quantizers.modules import WeightQuantizer
from geta_nb.quantizers.parametrized import computed, is_foreign, own_parameters, replace_computed


@torch.no_grad()
def weight_value(module: nn.Module, name: str) -> Tensor:
    """Return what a quantizer on ``module.name`` is given, detached: the Parameter itself, or what others compute, as in eval mode."""
    if not is_foreign(module, name):
        return own_parameters(module)[name].detach()
    tensors = computed(module)[name]
    modes = [(part, part.training) for part in tensors.modules()]
    found = [tensors.original] if tensors.is_tensor else [getattr(tensors, f"original{i}") for i in range(tensors.ntensors)]
    try:
        for part, _ in modes:
            part.training = False  # a power iteration writes into its vectors
        for part in takewhile(lambda part: not isinstance(part, WeightQuantizer), tensors):
            found = [part(*found)]
        return cast(Tensor, found[0]).detach()
    finally:
        for part, training in modes:
            part.training = training


@dataclass(frozen=True)
class ComputedWeight:
    """What a quantizer on ``module.name`` is given, whenever it is called."""

    module: nn.Module
    name: str

    def __call__(self) -> Tensor:
        """Return it, detached."""
        return weight_value(self.module, self.name)

    def as_parameter(self) -> nn.Parameter:
        """Return it as a parameter of its own, which trains where something that it starts from does."""
        trains = any(p.requires_grad for p in computed(self.module)[self.name].parameters(recurse=False))
        return nn.Parameter(self().clone(), trains)


class _Mark(nn.Module):
    """A last parametrization that computes nothing and shows in a trace."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` marked."""
        return mark(x, self.label)


@contextmanager
def marked_behind(module: nn.Module, name: str, label: str) -> Iterator[None]:
    """Let what others compute carry a mark while inside."""
    tensors = computed(module)[name]
    tensors.append(_Mark(label).train(module.training))
    try:
        yield
    finally:
        del tensors[len(tensors) - 1]


def is_last(module: nn.Module, name: str) -> bool:
    """Whether our quantizer, behind what others compute, is the last to change it."""
    return is_foreign(module, name) and isinstance(list(computed(module)[name])[-1], WeightQuantizer)


def materialise(module: nn.Module, name: str) -> None:
    """Let what others compute, as it is before our quantizer, be a plain parameter; the class of ``module`` is then its own."""
    replace_computed(module, name, ComputedWeight(module, name).as_parameter())


@contextmanager
def without_parametrizations(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Let these weights be plain parameters, in place, where others compute them; if the block raises, all is as it was."""
    before = []
    for path, _, leaf in (name.rpartition(".") for name in names):
        module = dict(model.named_modules()).get(path)
        if module is not None and is_foreign(module, leaf) and not any(isinstance(q, WeightQuantizer) for q in computed(module)[leaf]):
            table = cast(nn.ModuleDict, module.parametrizations)
            before.append((module, module.__class__, dict(module._parameters), dict(module._modules), table, dict(table._modules)))
            materialise(module, leaf)

    try:
        yield
    except BaseException:
        for module, cls, parameters, modules, table, tensors in reversed(before):
            module.__class__ = cls
            for now, then in ((module._parameters, parameters), (module._modules, modules), (table._modules, tensors)):
                now.clear()
                now.update(then)
        raise


def computed_matrices(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the module's own weights with two axes or more that others compute."""
    values = {name: weight_value(module, name) for name in computed(module) if is_foreign(module, name)}
    return tuple(name for name, value in values.items() if value.is_floating_point() and value.ndim >= 2 and value.numel())
