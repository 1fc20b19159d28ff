"""Low-rank adapters (LoRA) as a part of the weight that they adapt: W + s B A, pruned and quantized as one.

In: a model with quantizers, around whose layers ``peft`` has put adapter layers. Out: the same, in which each such layer computes with the
sum, in front of the quantizer and with what was pruned at zero, and in which a merge writes that sum into the model's own parameter. As
``peft`` has it, the terms stand beside a quantized weight: what they learn then is rounded away by the merge, or lost, since a quantized
weight that is written to is made anew when it is read. After gradients of the sum the groups are judged (as LoRAPrune has it,
arXiv:2305.18403, here without its estimate: the gradient is there while the backward pass goes by).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from geta_nb.errors import ConfigError, InputError
from geta_nb.groups import BoolArray, GroupTable, masking
from geta_nb.quantizers.adapters import adapter_layers, inner, is_adapter
from geta_nb.quantizers.parametrized import computed, is_foreign, own_parameters, parameter_tensors, tensors_of_groups, weight_quantizer

FACTORS = "group_factors_"
"""Buffers of an adapter layer, one an axis of the weight: 0 where a group is gone, less than 1 where it fades."""
_WRITE_THE_WEIGHT = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the model's own weight."""


class Adopted:
    """One weight and its low-rank terms. Takes the place of three methods of the adapter layer; all others stay as they are.

    Args:
        path: of the model's own layer.
        layer: the adapter layer around it.

    Attributes:
        watched: whether <W + s B A, g> is added up along the axes that have factors, in each backward pass.
    """

    def __init__(self, path: str, layer: nn.Module) -> None:
        self.path, self.layer, self.watched = path, layer, False
        self._sums: dict[int, Tensor] = {}

    @property
    def name(self) -> str:
        """The parameter's own name."""
        return f"{self.path}.weight" if self.path else "weight"

    @property
    def weight(self) -> nn.Parameter:
        """The parameter W."""
        return own_parameters(inner(self.layer))["weight"]

    def take_over(self) -> None:
        """Let the adapter layer compute and merge in this way from now on; a copy of it has a copy of this."""
        self.layer.forward, self.layer.merge, self.layer.unmerge = self.forward, self.merge, self.unmerge  # type: ignore[assignment]

    def factors(self) -> dict[int, Tensor]:
        """Return the factors of each axis that has groups."""
        found = {name: b for name, b in self.layer._buffers.items() if name.startswith(FACTORS) and b is not None}
        return {int(name.removeprefix(FACTORS)): buffer for name, buffer in found.items()}

    def keep(self, axis: int, alive: BoolArray) -> None:
        """Let nothing be added where ``alive``, [size of ``axis``], is False; what fades goes on fading."""
        living = torch.as_tensor(alive, device=self.weight.device)
        now = self.factors().get(axis, torch.ones(len(alive), device=self.weight.device))
        self.layer.register_buffer(f"{FACTORS}{axis}", torch.where(living, torch.where(now == 0, 1, now), 0))

    def live(self) -> list[str]:
        """Return the adapters that are added now: as ``peft`` has it none while others are merged."""
        layer: Any = self.layer
        if layer.disable_adapters or layer.merged_adapters:
            return []
        return [name for name in layer.active_adapters if name in layer.lora_A or name in layer.lora_embedding_A]

    def added(self, names: list[str]) -> Tensor:
        """Return the sum of the terms of these adapters, shape of the weight, with 0 where groups are gone."""
        layer: Any = self.layer
        with torch.autocast(self.weight.device.type, enabled=False):  # a merge is not under one either
            total = sum(layer.get_delta_weight(name) for name in names)
            for axis, factor in self.factors().items():
                total = total * factor.to(total.dtype).view([-1 if at == axis else 1 for at in range(total.ndim)])
        return cast(Tensor, total)

    def _sum(self, names: list[str]) -> Tensor:
        weight = self.weight
        return (weight + self.added(names)).to(weight.dtype) if names else weight

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Return the weight as its quantizer gets it, detached."""
        return self._sum(self.live()).detach()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the adapter layer's forward."""
        if kwargs.get("adapter_names") is not None:
            raise InputError(
                "adapter_names: a sample cannot have an adapter of its own where adapters are part of the weight.", at=self.path,
                expected="one set of adapters for a batch", got=f"{len(kwargs['adapter_names'])} names", hint="model.set_adapter(name)",
            )  # fmt: skip
        names = self.live()
        if not names:
            return type(self.layer).forward(self.layer, x, *args, **kwargs)
        own, total = inner(self.layer), self._sum(names)
        if self.watched and total.requires_grad and torch.is_grad_enabled():
            total.register_hook(self._count)
        place = "parametrizations.weight.original" if "weight" in computed(own) else "weight"
        return torch.func.functional_call(own, {place: total}, (x, *args), kwargs)

    @torch.no_grad()
    def _count(self, gradient: Tensor) -> None:
        # the sum is made again, not kept: it would be in memory for each layer until its turn comes
        product = (self() * gradient).float() if gradient.dtype != torch.float64 else self() * gradient
        for axis in self.factors():
            found = product.sum([at for at in range(product.ndim) if at != axis])
            self._sums[axis] = self._sums[axis] + found if axis in self._sums else found

    def take(self, axis: int) -> Tensor | None:
        """Return <W + s B A, g> along an axis since it was last :meth:`forget`; None without a backward pass."""
        found = self._sums.get(axis)
        return None if found is None else found.nan_to_num(0, 0, 0)  # of a step that a scaler skipped

    def forget(self, *, watched: bool) -> None:
        """Begin anew with what the next backward passes bring."""
        self._sums, self.watched = {}, watched

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Stand in for the adapter layer's merge: write W + s B A into the model's own parameter, whatever quantizer stands on it."""
        layer: Any = self.layer
        names = [n for n in adapter_names or layer.active_adapters if n in layer.lora_A or n in layer.lora_embedding_A]
        if not (names := [n for n in names if n not in layer.merged_adapters]):
            type(layer).merge(layer, safe_merge, adapter_names)  # has its own words for it
            return
        total = self._sum(names)
        if safe_merge and not bool(total.isfinite().all()):
            raise ValueError(f"NaNs detected in the merged weights. The adapter {names[0]} seems to be broken")
        self.weight.copy_(total)
        layer.merged_adapters.extend(names)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Stand in for the adapter layer's unmerge."""
        layer: Any = self.layer
        names = list(layer.merged_adapters)
        if not names:
            type(layer).unmerge(layer)
            return
        weight = self.weight
        weight.copy_((weight - self.added(names)).to(weight.dtype))
        layer.merged_adapters.clear()


def adopted_in(model: nn.Module) -> dict[str, Adopted]:
    """Return own name of the weight -> its terms, for each adapter layer that was adopted."""
    owners = [getattr(layer.__dict__.get("forward"), "__self__", None) for _, layer in adapter_layers(model)]
    return {owner.name: owner for owner in owners if isinstance(owner, Adopted)}


def adopt(model: nn.Module, table: GroupTable, *, late: bool = True) -> dict[str, Adopted]:
    """Adopt all adapter layers of a model; what is zero stays zero. Returns own name of the weight -> its terms.

    Args:
        model: with its quantizers.
        table: its groups.
        late: the adapters came after the quantizers.

    Raises:
        ConfigError: adapters that cannot be part of a weight; nothing was changed.
    """
    check_adapters(model, late=late)
    there = adopted_in(model)
    found = {one.name: one for path, layer in adapter_layers(model) if (one := Adopted(path, layer)).name not in there}
    for one in found.values():
        one.take_over()
    found = {**there, **found}
    tensors = tensors_of_groups(model) if found else {}
    meta = any(tensor.is_meta for tensor in tensors.values())
    alive = np.ones(table.n_groups, dtype=bool) if meta or not found else masking.alive_groups(table, tensors)
    padded = np.append(alive, True)  # -1 is of no group
    for entry in table.axis_maps if found else ():
        if entry.producing and entry.parameter in found:
            found[entry.parameter].keep(entry.axis, padded[entry.group_of_index])
    return found


def check_merged(model: nn.Module, who: str) -> None:
    """Check that no adapter layer stands in a model.

    Raises:
        ConfigError: one does.
    """
    first = next(adapter_layers(model), None)
    if first is not None:
        raise ConfigError(
            f"{who}: the model has adapters that are not merged.", at=first[0], expected="the model's own layers alone",
            got=f"a {type(first[1]).__name__} around it", hint="peft_model.merge_and_unload() first",
        )  # fmt: skip


def check_adapters(model: nn.Module, *, late: bool = False) -> None:
    """Check that what others put into a model to adapt it can be part of its weights.

    Args:
        model: to look at.
        late: the adapters came after the quantizers, which a quantized weight that they change at their start cannot take.

    Raises:
        ConfigError: a wrapper around the whole model, or adapters of another kind; names it, and what would do.
    """
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        raise ConfigError(
            "GETA: the model is wrapped already.", expected="the model itself", got=type(model).__name__,
            hint="geta = gt.GETA(peft_model.get_base_model(), ...)",
        )  # fmt: skip
    for path, module in model.named_modules():
        if "original_module" in module._modules and hasattr(module, "merged_adapters"):
            raise _refused(path, f"a {type(module).__name__} with copies of a layer", "LoraConfig(modules_to_save=None), and "
                           f"model.get_submodule({path!r}).requires_grad_(True) to train it whole")  # fmt: skip
    places: dict[int, int] = {}
    for parameter in parameter_tensors(model).values():
        places[id(parameter)] = places.get(id(parameter), 0) + 1
    begun, there = _beginnings(model) if late else {}, {one.path for one in adopted_in(model).values()}
    for path, layer in adapter_layers(model):
        if (against := _against(layer, places, {} if path in there else begun)) is not None:
            raise _refused(path, *against)


def _refused(path: str, got: str, hint: str) -> ConfigError:
    return ConfigError(
        "GETA: these adapters cannot be part of a weight.", at=path, expected="plain low-rank terms (LoRA) on one weight", got=got,
        hint=hint,
    )  # fmt: skip


def _beginnings(model: nn.Module) -> Mapping[str, str]:
    """Return name of an adapter -> how it began, where that changes the model's own weight."""
    configs = getattr(model, "peft_config", None)
    found = {name: getattr(c, "init_lora_weights", None) for name, c in configs.items()} if isinstance(configs, Mapping) else {}
    return {name: how for name, how in found.items() if isinstance(how, str) and how.lower().startswith(_WRITE_THE_WEIGHT)}


def _against(layer: Any, places: Mapping[int, int], begun: Mapping[str, str]) -> tuple[str, str] | None:
    """Return what speaks against an adapter layer, and what would do; None: nothing."""
    own, kind = inner(layer), type(layer).__name__
    weight = None if is_foreign(own, "weight") else own_parameters(own).get("weight")
    thin = all(name in layer._modules for name in ("lora_A", "lora_B")) and not hasattr(layer, "parameter_name")
    if not thin or weight is None or weight.ndim < 2 or is_adapter(layer._modules["base_layer"]):
        return f"a {kind} around a {type(own).__name__}", "LoraConfig(target_modules=...) of linear, convolution and embedding layers"
    variants = [type(one).__name__ for one in getattr(layer, "lora_variant", {}).values()]
    if variants or any(layer.use_dora.values()):
        return f"a variant ({', '.join(variants) or 'DoRA'})", "LoraConfig without use_dora and other variants"
    if any(layer.lora_bias.values()):
        return "a bias beside the thin matrices", "LoraConfig(lora_bias=False)"
    if any(getattr(part, "p", 0) > 0 for part in layer.lora_dropout.values()):
        return "dropout between the input and the thin matrices", "LoraConfig(lora_dropout=0.0)"
    if places.get(id(weight), 0) > 1:
        return "an adapter on a weight that two layers share", "LoraConfig(target_modules=...) without it"
    if any(getattr(p, "placements", None) is not None for p in layer.parameters()):
        return "parameters sharded over ranks", "DistributedDataParallel instead of fully_shard"
    names = [name for name in layer.lora_A if name in begun]
    if names and weight_quantizer(own, "weight") is not None:
        return f"init_lora_weights={begun[names[0]]!r}, which is written into a quantized weight and lost", (
            "gt.GETA(peft_model.get_base_model(), ...) after get_peft_model, or init_lora_weights=True"
        )
    return None
