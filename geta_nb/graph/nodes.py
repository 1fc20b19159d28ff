"""What one node of a traced graph is: its operator, its shape, and the module that ran it. Under ``trace``; every later stage asks here."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx

_PRIVATE_SCOPE = "_empty_nn_module_stack_from_metadata_hook"
_SOME_SIZE = 6  # of an axis whose length only data decides; nothing along it is ever removable


def module_path(node: fx.Node) -> str:
    """Return the dotted path of the innermost module whose forward ran this node ('' for the root)."""
    for path, _ in reversed(list((node.meta.get("nn_module_stack") or {}).values())):
        if path != _PRIVATE_SCOPE:
            return _plain(str(path))
    return ""


def running_paths(node: fx.Node) -> list[str]:
    """Return the dotted paths of all modules whose forward this node ran in, the outermost first."""
    paths = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return [_plain(path) for path in paths if path != _PRIVATE_SCOPE]


@lru_cache(maxsize=4096)
def _plain(path: str) -> str:
    """Return a path without the number of a call; torch writes ``layers.slice(1, None, None).0`` for ``layers.1`` met in ``layers[1:]``."""
    path = re.sub(r"@\d+", "", path)
    return re.sub(r"slice\((None|\d+), [^,]+, (?:None|1)\)\.(\d+)", lambda m: str(int(m[2]) + (0 if m[1] == "None" else int(m[1]))), path)


def call_of(node: fx.Node, path: str) -> str:
    """Return a name for the call of the module at ``path`` that ran a node; where none did, for that of the innermost module."""
    stack = [(str(call), _plain(str(where))) for call, (where, _) in (node.meta.get("nn_module_stack") or {}).items()]
    return next((call for call, where in reversed(stack) if where == path), stack[-1][0] if stack else "")


def hint(size: int | torch.SymInt) -> int:
    """Return the traced value of a size, without specialising a dynamic one; for a size that depends on data, some value."""
    if isinstance(size, int):
        return size
    if size.node.hint is not None:
        return int(size.node.hint)
    return int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, _SOME_SIZE)))


def sizes_elsewhere(size: int | torch.SymInt) -> int | tuple[int, ...]:
    """Return a size in the example and, if it is free, where all free sizes are multiples of those there, not all by the same number."""
    if isinstance(size, int):
        return size
    expression, known = size.node.expr, size.node.shape_env.backed_var_to_val
    if not all(symbol in known for symbol in expression.free_symbols):
        return hint(size)  # of data
    ranks = {symbol: rank for rank, symbol in enumerate(sorted(known, key=str))}

    def at(times: tuple[int, ...]) -> int:
        return int(expression.xreplace({s: int(known[s]) * times[ranks[s] % len(times)] for s in expression.free_symbols}))

    return (hint(size), *map(at, ((2, 3), (3, 2, 5), (1, 2), (2, 1), (4, 1), (1, 2, 4), (4, 4))))


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the output shape of a node as plain numbers, or None when it is not a tensor."""
    value = node.meta.get("val")
    return tuple(hint(size) for size in value.shape) if isinstance(value, Tensor) else None


def overload_name(target: torch._ops.OpOverload) -> str:
    """Return the name that an operator has here: short for torch's own (``conv2d``), with its library for others (``mylib::conv2d``)."""
    library, _, name = target._schema.name.partition("::")
    return name if library in {"aten", "prims"} else target._schema.name


def operator_name(node: fx.Node) -> str:
    """Return the operator name of a node: ``conv2d`` for ``aten.conv2d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return overload_name(node.target)
    return getattr(node.target, "__name__", str(node.target)) if node.op == "call_function" else node.op


def owner_of(root: torch.nn.Module, path: str) -> tuple[torch.nn.Module, str]:
    """Return the module that owns what stands at a dotted path, and the last name; modules that are not there are made."""
    *parts, leaf = path.split(".")
    for part in parts:
        if part not in root._modules:
            root.add_module(part, torch.nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root, leaf


def attribute_tensor(module: torch.nn.Module, target: str) -> Tensor:
    """Return the tensor a ``get_attr`` target names."""
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value
