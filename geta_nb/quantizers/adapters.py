"""Adapter layers of others, looked through: the model's own modules keep their own names, whatever stands around them for a while.

In: a model whose layers may stand inside adapter layers, as ``peft`` puts them there. Out: what is the model's own, under its own names,
and what is the adapters'. ``peft`` is not imported: an adapter layer is known by its parts. Between a model and its own tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn


def is_adapter(module: nn.Module | None) -> bool:
    """Whether a module adapts a layer of the model that it holds."""
    return module is not None and "base_layer" in module._modules and hasattr(module, "merged_adapters")


def inner(module: nn.Module) -> nn.Module:
    """Return the layer of the model's own that stands at a place: what an adapter layer holds, else the module itself."""
    while is_adapter(module):
        module = cast(nn.Module, module._modules["base_layer"])
    return module


def adapter_layers(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield (own path, adapter layer) for each layer of the model that stands in one; of several around one layer the outermost."""
    if is_adapter(model):
        yield path, model
    for name, child in inner(model)._modules.items():
        if child is not None:
            yield from adapter_layers(child, f"{path}.{name}" if path else name)


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what adapter layers bring along beside the layers that they hold, by the names that torch has for it."""
    layers = [layer for _, layer in adapter_layers(model)]
    if not layers:
        return {}
    own = {id(p) for layer in layers for p in inner(layer).parameters()}
    theirs = {id(p) for layer in layers for p in layer.parameters()} - own
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in theirs}


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Let the model's own layers stand where adapter layers hold them, while inside; the root stays what it is."""
    owners = [parent for parent in model.modules() if not is_adapter(parent)]
    places = [(parent, name, child) for parent in owners for name, child in parent._modules.items() if child is not None]
    before = [place for place in places if is_adapter(place[-1])]
    try:
        for parent, name, child in before:
            parent._modules[name] = inner(child)
        yield
    finally:
        for parent, name, child in before:
            parent._modules[name] = child
