"""A freshly built model of the dense network's class, made as narrow as the subnet in a file, and filled with its numbers.

In: the model, the tensors and quantizers of a file, and the numbers that the cut changed in the modules. Out: the same model, with all
that its class can do (``generate``, ``config``, hooks); everything is checked before anything is changed. Used by ``save_load``.
"""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from geta_nb.config import QuantConfig
from geta_nb.errors import ArtifactError, ConfigError
from geta_nb.graph import are_close, max_difference, outputs_of
from geta_nb.quantizers import ActivationQuantizer, Asked, attach_quantizers, canonical_name, without_parametrizations
from geta_nb.subnet import PARAMETER, SCRATCH, Entry, GraphNet, list_entries, probe_inputs

Widths = Mapping[str, Mapping[str, Any]]
_HINT = "model= wants a model built as the dense one was: same class, same configuration; gt.load(path) needs none"


def encode_widths(widths: Widths | None) -> dict[str, dict[str, Any]] | None:
    """Return numbers, and tuples of integers, as JSON data."""
    return None if widths is None else {
        path: {name: value if isinstance(value, (int, float)) else list(value) for name, value in found.items()}
        for path, found in widths.items()
    }


def decode_widths(data: Any) -> dict[str, dict[str, Any]] | None:
    """Return what :func:`encode_widths` wrote; None where there are none.

    Raises:
        ArtifactError: data that are none.
    """
    if data is None:
        return None
    whole = isinstance(data, dict) and all(isinstance(found, dict) for found in data.values())
    values = [value for found in data.values() for value in found.values()] if whole else []
    if not whole or not all(_is_number(value) for value in values):
        raise ArtifactError("load: the widths of modules are malformed.", got=reprlib.repr(data))
    return {path: dict(found) for path, found in data.items()}


def _is_number(value: Any) -> bool:
    """Whether a value is an integer, a finite number or a row of integers."""
    if isinstance(value, list):
        return all(type(item) is int for item in value)
    return type(value) is int or (type(value) is float and isfinite(value))


def decode_shapes(data: Any) -> dict[str, tuple[int, ...]]:
    """Return shapes by name.

    Raises:
        ArtifactError: data that are none.
    """
    rows: dict[str, Any] = data if isinstance(data, dict) else {"": None}
    if not all(isinstance(shape, list) and all(type(size) is int for size in shape) for shape in rows.values()):
        raise ArtifactError("load: the shapes of the dense network are malformed.", got=reprlib.repr(data))
    return {name: tuple(shape) for name, shape in rows.items()}


def make_narrow(
    model: nn.Module,
    entries: list[Entry],
    widths: Widths,
    whole: Mapping[str, tuple[int, ...]],
    quantizers: Mapping[str, ActivationQuantizer],
    graph: GraphNet,
    coded: Iterable[str] = (),
) -> None:
    """Give ``model`` the tensors, integers and input quantizers of a file, in place.

    ``coded`` are the names of weights with codes: where parametrizations of the model compute one, they go, and it is a plain parameter.
    What it computes then is compared with the graph, on inputs of the example's sizes: a configuration that differs in what no shape shows
    (a base of positions, an activation) is another network.

    Raises:
        ArtifactError: another model than that of the file; nothing was changed.
        ConfigError: no module.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError("load: model is no module.", expected="a torch.nn.Module", got=type(model).__name__, hint=_HINT)
    with without_parametrizations(model, coded):
        saved = {entry.name: entry for entry in entries if entry.name.rpartition(".")[0] not in quantizers}
        _check_names(model, saved, whole)
        rows = [(path, name, value) for path, found in sorted(widths.items()) for name, value in sorted(found.items())]
        changes = [(_submodule(model, path), name, value) for path, name, value in rows]
        values = [_as_attribute(module, name, value) for module, name, value in changes]
        before = [vars(module)[name] for module, name, _ in changes]
        raw = _raw_names(model)
        places = [(_submodule(model, raw[name].rpartition(".")[0]), raw[name].rpartition(".")[2]) for name in saved.keys() & raw.keys()]
        old = [(owner._parameters.get(leaf), owner._buffers.get(leaf)) for owner, leaf in places]
        undo = _attach(model, quantizers)
        try:
            for (module, name, _), value in zip(changes, values, strict=True):
                setattr(module, name, value)
            for name in saved.keys() & raw.keys():
                _put(model, raw[name], saved[name])
            _compare(model, graph)
        except BaseException:
            undo()
            for (module, name, _), value in zip(changes, before, strict=True):
                setattr(module, name, value)
            for (owner, leaf), (parameter, buffer) in zip(places, old, strict=True):
                if parameter is not None:
                    owner._parameters[leaf] = parameter
                else:
                    owner._buffers[leaf] = buffer
            raise


def _raw_names(model: nn.Module) -> dict[str, str]:
    """Return own name -> name as torch lists it: what a parametrization stands on has another."""
    return {canonical_name(model, entry.name): entry.name for entry in list_entries(model)}


def _put(model: nn.Module, name: str, entry: Entry) -> None:
    """Let a module have a tensor of the file, on the device of the one that it had (on the CPU for meta); tied names get the same one."""
    owner, leaf, new = _submodule(model, name.rpartition(".")[0]), name.rpartition(".")[2], entry.tensor
    device = next(tensor.device for tensor in (owner._parameters.get(leaf), owner._buffers.get(leaf)) if tensor is not None)
    if new.device != device and device.type != "meta":
        new.data = new.data.to(device)
    if entry.kind == PARAMETER:
        owner._parameters[leaf] = new if isinstance(new, nn.Parameter) else nn.Parameter(new, requires_grad=False)
    else:
        owner._buffers[leaf] = new


def _compare(model: nn.Module, graph: GraphNet) -> None:
    """Raise where the model does not compute what the graph computes; a graph that takes no probe is not asked."""
    try:
        args, kwargs = probe_inputs(graph)
        twin = copy.deepcopy(graph) if next(iter(graph.parameters()), torch.empty(0, device="cpu")).device.type != "cpu" else graph
        expected = outputs_of(twin.cpu(), args, kwargs)
    except Exception:  # of values that no probe hits: lengths, positions
        return
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    args, kwargs = tree_map_only(Tensor, lambda leaf: leaf.to(device), (args, kwargs))
    what = "load: the model does not compute what the network in the file computes."
    try:
        found = _as_many(len(expected), model, args, kwargs)
    except Exception as error:
        got = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        raise ArtifactError(what, expected="outputs for inputs of the example's sizes", got=got, hint=_HINT) from error
    if not are_close(found, expected):
        got = f"a difference of {max_difference(found, expected):.3g}"
        raise ArtifactError(what, expected="equal outputs for inputs of the example's sizes", got=got, hint=_HINT)


def _as_many(count: int, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return a model's outputs; without those in a cache, which a model may hand out beside them, where there are too many."""
    found = outputs_of(model, args, kwargs)
    found = found if len(found) <= count else outputs_of(model, args, kwargs, objects=False)
    return [leaf.cpu() for leaf in found]


def _check_names(model: nn.Module, saved: Mapping[str, Entry], whole: Mapping[str, tuple[int, ...]]) -> None:
    own = {canonical_name(model, entry.name): entry for entry in list_entries(model)}
    needed, present = ({name for name, entry in table.items() if entry.kind != SCRATCH} for table in (saved, own))
    if needed != present:
        expected, got = f"also {sorted(needed - present)[:3]}", f"also {sorted(present - needed)[:3]}"
        raise ArtifactError("load: the model has other parameters than the file.", expected=expected, got=got, hint=_HINT)
    for name in sorted(saved.keys() & own.keys()):
        old, new = own[name].tensor, saved[name].tensor
        shapes = {tuple(new.shape), whole.get(name, tuple(new.shape))}  # a model that is narrow already is one too
        if tuple(old.shape) not in shapes or (old.dtype, own[name].kind) != (new.dtype, saved[name].kind):
            what = "load: a tensor of the model is not one of the dense network."
            expected = f"{new.dtype}, {whole.get(name, tuple(new.shape))}"
            got = f"{old.dtype}, {tuple(old.shape)}"
            raise ArtifactError(what, at=name, expected=expected, got=got, hint=_HINT)


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ArtifactError("load: the model has no such module.", at=path, hint=_HINT) from None


def _as_attribute(module: nn.Module, name: str, value: Any) -> Any:
    """Return a value in the form that the attribute has now; only a number, or a row of integers, may change."""
    old: Any = vars(module).get(name)
    if type(old) is type(value) in (int, float) or (old is None and type(value) is float and name in vars(module)):
        return value
    row = type(old) in (tuple, list, torch.Size) and all(type(item) is int for item in old)
    if row and isinstance(value, list) and len(old) == len(value):
        return type(old)(value)
    what, expected = "load: the model has no such attribute.", f"a place for {value!r}"
    raise ArtifactError(what, at=f"{type(module).__name__}.{name}", expected=expected, got=repr(old)[:80], hint=_HINT)


def _attach(model: nn.Module, quantizers: Mapping[str, ActivationQuantizer]) -> Callable[[], None]:
    """Put the file's input quantizers where they stood, each in the module of its weight; return what takes them off again."""
    owners = {path: path.rpartition(".")[0] for path in quantizers}
    if not owners:
        return lambda: None
    asked = Asked(weights=frozenset(), inputs=frozenset(owner or "weight" for owner in owners.values()))
    attached = attach_quantizers(model, QuantConfig(activations=True), asked)
    absent = [owner for owner in owners.values() if (owner or "weight") not in attached.activations]
    if absent:
        attached.undo()
        raise ArtifactError("load: a module of the model takes no input quantizer.", at=absent[0], hint=_HINT)
    for path, owner in owners.items():
        model.get_submodule(owner).input_quantizer = quantizers[path]
    return attached.undo
