"""Outputs that are objects of a class torch knows no structure of, as containers of the tensors that they hold. Beside the trace.

In: what a forward gave out. Out: the same, in which each such object (a dataclass, a cache) is a :class:`Record` of what stands in its
fields; else in its attributes, as deep as there are tensors. No class is registered with torch and none is known by name: the trace and
every comparison open an object in the same order, so that all its tensors are in both.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.graph.records import Record

_KNOWN = (Tensor, int, float, str, type(None), torch.SymInt, torch.SymFloat, torch.SymBool, torch.ScriptObject)
"""Leaves that torch's exporter gives out as they are."""
_CLOSED = (type, ModuleType, nn.Module)
"""What an object may point at without giving it out."""


class _Sealed(Exception):
    """An object keeps a tensor where nobody can say in which order."""


def opened(out: Any) -> Any:
    """Return an output in which every object without a structure is a container of what it holds; ``out`` itself where none is.

    An object that shows no tensors stays as it is, and the exporter says so.

    >>> class Pair:
    ...     def __init__(self, left, right):
    ...         self.right, self.left, self.size = right, left, 2
    >>> list(opened((torch.ones(1), Pair(torch.ones(2), [torch.ones(3)])))[1])
    ['left', 'right']
    """
    leaves, spec = pytree.tree_flatten(out)
    if all(isinstance(leaf, _KNOWN) for leaf in leaves):
        return out
    met: dict[int, Any] = {}
    return pytree.tree_unflatten([leaf if isinstance(leaf, _KNOWN) else _open_leaf(leaf, met) for leaf in leaves], spec)


def tensors_in(out: Any) -> list[Tensor]:
    """Return the tensors of an output in order, those of objects too."""
    return [leaf for leaf in pytree.tree_leaves(opened(out)) if isinstance(leaf, Tensor)]


@contextmanager
def opened_outputs(model: nn.Module) -> Iterator[None]:
    """Let a model give out opened objects for a while; it is as it was afterwards, also after an error."""
    handle = model.register_forward_hook(lambda module, args, out: opened(out))
    try:
        yield
    finally:
        handle.remove()


def _open_leaf(leaf: Any, met: dict[int, Any]) -> Any:
    try:
        found = _contents(leaf, met)
    except _Sealed:
        return leaf
    return found if _has_tensors(found) else leaf


def _contents(value: Any, met: dict[int, Any]) -> Any:
    """Return a value of leaves that torch knows; None for what holds none. An object that was met before is not opened again."""
    if isinstance(value, _KNOWN):
        return value
    if isinstance(value, _CLOSED) or id(value) in met:
        return None
    met[id(value)] = value
    if not pytree.tree_is_leaf(value):
        return pytree.tree_map(lambda leaf: _contents(leaf, met), value)
    if isinstance(value, Mapping):
        return {key: _contents(item, met) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | range):
        return [_contents(item, met) for item in value]
    found = _attributes(value, met)
    return Record(found) if found else None


def _attributes(value: Any, met: dict[int, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass, numbers too, then those of other attributes that hold tensors, by name.

    Raises:
        _Sealed: there are none, and the object holds a tensor all the same (a set, a generator).
    """
    declared = [field.name for field in fields(value) if hasattr(value, field.name)] if is_dataclass(value) else []
    slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
    others = sorted({*getattr(value, "__dict__", {}), *slots} - set(declared))
    if not declared and not others and any(isinstance(item, Tensor) for item in gc.get_referents(value)):
        raise _Sealed
    found = {name: _contents(getattr(value, name), met) for name in declared}
    for name in others:
        inside = _contents(getattr(value, name), met)
        if _has_tensors(inside):
            found[name] = inside
    return found


def _slots(kind: type) -> tuple[str, ...]:
    names = kind.__dict__.get("__slots__", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    private = f"_{kind.__name__.lstrip('_')}"  # how Python writes a name that begins with two underscores
    return tuple(f"{private}{name}" if name.startswith("__") else name for name in names if not name.endswith("__"))


def _has_tensors(found: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(found))
