"""The mechanics of a quantized parameter: put a quantizer on ``module.name``, take it off, and find the original behind it.

In: one module, one parameter name, one quantizer. Out: the same module, whose ``name`` now reads as x^Q of the *same* Parameter object.
Below it lies ``torch.nn.utils.parametrize``, which this file makes exact: registration order, class, copies and failures midway.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from geta_nb.quantizers.adapters import adapter_parameters, inner
from geta_nb.quantizers.lookup import lookup, reads_rows
from geta_nb.quantizers.modules import ActivationQuantizer, Quantizer, WeightQuantizer, quantize_input
from geta_nb.quantizers.plain_state import stop_watching, watch_loading


def computed(module: nn.Module) -> dict[str, ParametrizationList]:
    """Return {name: what computes it} for the parameters of ``module`` that are parametrized, by us or by others."""
    table = getattr(module, "parametrizations", None)
    found = table.items() if isinstance(table, nn.ModuleDict) else ()
    return {name: tensors for name, tensors in found if isinstance(tensors, ParametrizationList)}


def is_foreign(module: nn.Module, name: str) -> bool:
    """Whether parametrizations of the model's own compute ``module.name``; a quantizer of ours may stand behind them."""
    tensors = computed(module).get(name)
    return tensors is not None and not isinstance(next(iter(tensors), None), WeightQuantizer)


def weight_quantizer(module: nn.Module, name: str) -> WeightQuantizer | None:
    """Return the quantizer on ``module.name``, or None."""
    return next((q for q in computed(module).get(name, ()) if isinstance(q, WeightQuantizer)), None)


def quantizers_at(
    model: nn.Module, parameter_layer: Mapping[str, str], inputs: Iterable[str]
) -> tuple[dict[str, WeightQuantizer], dict[str, ActivationQuantizer]]:
    """Return the quantizers that stand at these places of a model, by layer; places without one are left out.

    Args:
        model: such as a copy of the one that was prepared.
        parameter_layer: original parameter name -> layer of its quantizer.
        inputs: layers (module paths) with a quantized input.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    weights: dict[str, WeightQuantizer] = {}
    for name, layer in parameter_layer.items():
        path, _, leaf = name.rpartition(".")
        found = weight_quantizer(inner(modules[path]), leaf) if path in modules else None
        if found is not None:
            weights.setdefault(layer, found)
    own = {layer: getattr(inner(modules[layer]), "input_quantizer", None) for layer in inputs if layer in modules}
    return weights, {layer: quantizer for layer, quantizer in own.items() if isinstance(quantizer, ActivationQuantizer)}


def _parameter_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the module's own parameters, None ones too, in the order they had before any was parametrized."""
    orders = (getattr(tensors, "parameter_order", None) for tensors in computed(module).values())
    return next((order for order in orders if order is not None), (*module._parameters,))


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the module's own parameters by original name, in their original order; a parametrized one by its ``.original``.

    One that a foreign parametrization computes from several tensors (``weight_norm``) is left out.
    """
    found = {name: p for name, p in module._parameters.items() if p is not None}
    for name, tensors in computed(module).items():
        if (original := tensors._parameters.get("original")) is not None:
            found[name] = original
    names = _parameter_names(module)
    return {name: found[name] for name in (*names, *found) if name in found}


def _restore_order(module: nn.Module, order: tuple[str, ...]) -> None:
    # state_dict, model.parameters() and so every optimizer built later follow this dict's order
    kept = dict(module._parameters)
    module._parameters.clear()
    module._parameters.update({name: kept.pop(name) for name in order if name in kept})
    module._parameters.update(kept)


def copies_itself(module: nn.Module) -> bool:
    """Whether the class that a parametrized module had before has its own ``__deepcopy__``."""
    return hasattr(type(module).__bases__[0], "__deepcopy__")


def _own_class(module: nn.Module, without: str | None = None) -> None:
    """Give a parametrized module a class of its own: a deep copy shares the class, with the properties that torch hangs on it."""
    cls = type(module)
    module.__class__ = type(cls.__name__, cls.__bases__, {k: v for k, v in vars(cls).items() if k != without})


def _deepcopy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy a parametrized module whose class has its own ``__deepcopy__`` (fx.GraphModule rebuilds itself and would drop the rest)."""
    plain = type(self).__bases__[0]
    twin: nn.Module = object.__new__(plain)
    twin.__dict__.update(self.__dict__)
    twin.__dict__["_parameters"] = dict(own_parameters(self))
    twin.__dict__["_modules"] = {name: m for name, m in self._modules.items() if name != "parametrizations"}
    for key, value in self.__dict__.items():
        if isinstance(value, MethodType) and value.__self__ is self:  # an exported program's train and eval
            twin.__dict__[key] = MethodType(value.__func__, twin)
    replica: nn.Module = copy.deepcopy(twin, memo)
    memo[id(self)] = replica
    for name, part in self._modules.items():
        if name != "parametrizations" and name not in replica._modules:
            replica.add_module(name, copy.deepcopy(part, memo))
    if quantize_input in self._forward_pre_hooks.values():
        replica.register_forward_pre_hook(quantize_input, with_kwargs=True)
    for name in computed(self):
        if (quantizer := weight_quantizer(self, name)) is not None:
            register(replica, name, copy.deepcopy(quantizer, memo))
    return replica


def register(module: nn.Module, name: str, quantizer: WeightQuantizer) -> None:
    """Let ``module.name`` read as ``quantizer`` of the Parameter that stands there now, which becomes ``.original``.

    What parametrizations of the model's own compute stays computed: the quantizer comes behind the last of them.

    Raises:
        Exception: whatever the module raises against it; the module is then as before.
    """
    if is_foreign(module, name):
        computed(module)[name].append(quantizer.train(module.training))
        watch_loading(module)
        return
    cls, parameters, modules, order = type(module), dict(module._parameters), dict(module._modules), _parameter_names(module)
    first = not parametrize.is_parametrized(module)
    try:
        if not first:
            _own_class(module)
        # unsafe spares a forward pass that would only check that shape and dtype stay, which a quantizer promises
        parametrize.register_parametrization(module, name, quantizer, unsafe=True)
        if not isinstance(getattr(type(module), name, None), property):
            raise TypeError(f"{cls.__name__} does not let {name} be computed")
    except BaseException:
        module.__class__ = cls
        module._parameters = parameters
        module._modules = modules
        raise
    if first and hasattr(cls, "__deepcopy__"):
        type(module).__deepcopy__ = _deepcopy  # type: ignore[attr-defined]
    if first and reads_rows(cls):
        type(module).forward = lookup
    watch_loading(module)
    tensors = computed(module)[name]
    object.__setattr__(tensors, "parameter_order", order)
    for part in (cast(nn.Module, module.parametrizations), tensors):
        part.training = module.training


def unregister(module: nn.Module, name: str) -> None:
    """Take the quantizer off ``module.name``: the Parameter returns to its place, the class to what it was."""
    tensors = computed(module)[name]
    if len(tensors) > 1:  # someone else's parametrization stays
        del tensors[next(i for i, q in enumerate(tensors) if isinstance(q, WeightQuantizer))]
        stop_watching(module)
        return
    replace_computed(module, name, cast(nn.Parameter, tensors.original))


def replace_computed(module: nn.Module, name: str, value: nn.Parameter) -> None:
    """Let ``module.name`` be a plain parameter in the place of what computes it: ours or others', which are dropped."""
    order, table = _parameter_names(module), cast(nn.ModuleDict, module.parametrizations)
    del table[name]
    stop_watching(module)
    if len(table) == 0:
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    else:
        _own_class(module, without=name)
    module._parameters[name] = value
    _restore_order(module, order)


def original_modules(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) for every module of the user's, under every path it has: no quantizer, no parametrization, no adapter."""
    model = inner(model)
    yield path, model
    for name, child in model._modules.items():
        hidden = name == "parametrizations" and computed(model)
        if child is not None and not hidden and not isinstance(child, Quantizer):
            yield from original_modules(child, f"{path}.{name}" if path else name)


def parameter_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the model's own parameters by their original names (tied ones under each name), without those of quantizers and adapters.

    The value for a quantized parameter is its ``.original``, the very object the model had before. Those that a foreign parametrization
    computes with (the length and the direction of ``weight_norm``) come last, by the names that torch has for them.
    """
    own = {f"{path}.{name}" if path else name: p for path, m in original_modules(model) for name, p in own_parameters(m).items()}
    known = {id(p) for p in own.values()}
    known |= {id(p) for module in model.modules() if isinstance(module, Quantizer) for p in module.parameters()}
    known |= {id(p) for p in adapter_parameters(model).values()}
    return {**own, **{name: p for name, p in model.named_parameters() if id(p) not in known}}


def canonical_name(model: nn.Module, raw_name: str) -> str:
    """Return the original name of a parameter: ``"c.parametrizations.weight.original"`` gives ``"c.weight"``, others stay.

    Args:
        model: the model that ``raw_name`` belongs to; a user's module that happens to be called ``parametrizations`` is no trap.
        raw_name: as in ``named_parameters`` or a trace.
    """
    *owner, holder, name, leaf = ["", "", *raw_name.split(".")]
    if holder != "parametrizations" or leaf != "original":
        return raw_name
    path = ".".join(owner).strip(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return raw_name
    if name not in computed(module):
        return raw_name
    return f"{path}.{name}" if path else name


@dataclass(frozen=True)
class OwnTensors:
    """The tensors of a model under its own names, whatever stands on them now.

    Attributes:
        parameters: :func:`parameter_tensors`.
        buffers: buffers, tied ones under each name.
        saved: names of those that a state dict holds.
        plain: name as torch lists it -> own name, where they differ.
    """

    parameters: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    saved: frozenset[str]
    plain: dict[str, str]


def _saved_buffers(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules(remove_duplicate=False):
        for name in module._buffers.keys() - module._non_persistent_buffers_set:
            yield f"{path}.{name}" if path else name


def tensors_of_groups(model: nn.Module) -> dict[str, Tensor]:
    """Return all tensors that a group can have slices in, by own name: parameters and buffers."""
    return {**parameter_tensors(model), **dict(model.named_buffers(remove_duplicate=False))}


def own_tensors(model: nn.Module) -> OwnTensors:
    """Return the tensors of ``model``; attaching quantizers changes none of them."""
    raw = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return OwnTensors(
        parameter_tensors(model),
        dict(model.named_buffers(remove_duplicate=False)),
        frozenset(_saved_buffers(model)),
        {name: own for name in raw if (own := canonical_name(model, name)) != name},
    )
