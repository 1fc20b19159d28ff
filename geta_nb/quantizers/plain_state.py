"""A state dict of the plain network, loaded into the quantized one: pretrained weights that arrive after ``gt.GETA``.

In: a module with quantizers, and a state dict that knows of none. Out: the same state dict under the names that the module has now. The
quantizer of a weight starts on it as if new, that of a weight which others compute on what they make of the new numbers; a range of inputs,
which belonged to other weights, has to be calibrated again.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.quantizers.modules import ActivationQuantizer, WeightQuantizer


def read_plain_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load hook of a module that has quantizers; a state dict with their numbers, or one that lacks some of them, stays as it is."""
    plain = True
    for name, tensors in _parametrized(module).items():
        number = next((i for i, part in enumerate(tensors) if isinstance(part, WeightQuantizer)), None)
        if number is None or (number == 0 and len(tensors) > 1):
            continue
        place, quantizer = f"{prefix}parametrizations.{name}.", tensors[number]
        value = _computed(tensors, number, state_dict, place) if number else state_dict.get(f"{prefix}{name}")
        if not isinstance(value, Tensor) or _knows(state_dict, f"{place}{number}." if number else place):
            plain = False
            continue
        if not number:
            state_dict[f"{place}original"] = state_dict.pop(f"{prefix}{name}")
        state_dict.update({f"{place}{number}.{key}": entry for key, entry in quantizer.fresh_state(value).items()})
    inputs, place = getattr(module, "input_quantizer", None), f"{prefix}input_quantizer."
    if plain and isinstance(inputs, ActivationQuantizer) and not _knows(state_dict, place):
        empty = {name: torch.zeros_like(tensor) for name, tensor in inputs.named_parameters()} | {"has_sign": inputs.has_sign.clone()}
        state_dict.update({f"{place}{key}": number for key, number in empty.items()})


def _parametrized(module: nn.Module) -> dict[str, Any]:
    table = getattr(module, "parametrizations", None)
    return dict(table.items()) if isinstance(table, nn.ModuleDict) else {}


@torch.no_grad()
def _computed(tensors: Any, number: int, state_dict: dict[str, Any], place: str) -> Tensor | None:
    """Return what others in front of our quantizer compute from the numbers of a state dict; None where it lacks some, or has others."""
    twin = copy.deepcopy(tensors)
    while len(twin) > number:
        del twin[len(twin) - 1]
    found = {key: (state_dict.get(f"{place}{key}"), now.shape) for key, now in twin.state_dict().items()}
    if any(not isinstance(value, Tensor) or value.shape != shape for value, shape in found.values()):
        return None
    twin.load_state_dict({key: value for key, (value, _) in found.items()})
    value: Tensor = twin.eval()()
    return value


def _knows(state_dict: dict[str, Any], place: str) -> bool:
    return any(key.startswith(place) for key in state_dict)


def watch_loading(module: nn.Module) -> None:
    """Let a module read state dicts of the plain network, from now on."""
    if not _hooks(module):
        module.register_load_state_dict_pre_hook(read_plain_names)


def stop_watching(module: nn.Module) -> None:
    """Undo :func:`watch_loading`, unless a quantizer is left on the module."""
    parts = [part for tensors in _parametrized(module).values() for part in tensors]
    if isinstance(getattr(module, "input_quantizer", None), ActivationQuantizer) or any(isinstance(q, WeightQuantizer) for q in parts):
        return
    for key in _hooks(module):
        del module._load_state_dict_pre_hooks[key]


def _hooks(module: nn.Module) -> list[int]:
    hooks: dict[int, Any] = module._load_state_dict_pre_hooks
    return [key for key, hook in hooks.items() if getattr(hook, "hook", hook) is read_plain_names]
