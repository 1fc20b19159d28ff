"""Arithmetic of sizes as text: written by torch, read back and computed without running anything but sums and comparisons.

In: ``"4 * (n0 // 4) == n0"`` and numbers for its names. Out: a number, or yes and no. Text in a file is untrusted: what is no
arithmetic of whole numbers is refused before it is computed.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import reprlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from geta_nb.errors import ArtifactError

_LONGEST = 50_000
_LARGEST = 2**63
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_CALLS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "math.trunc": math.trunc, "math.floor": math.floor, "math.ceil": math.ceil, "math.sqrt": math.sqrt,
    "torch.sym_float": float,
}  # fmt: skip
_HIGHEST = 8  # power
_NAME = re.compile(r"n\d+\Z")


def names_in(text: str) -> frozenset[str]:
    """Return the names of sizes in an expression.

    Raises:
        ArtifactError: the text is no arithmetic of sizes.

    >>> sorted(names_in("2*n1 + min(4, n0)"))
    ['n0', 'n1']
    """
    return frozenset(node.id for node in ast.walk(_tree(text)) if isinstance(node, ast.Name) and _NAME.match(node.id))


def value_of(text: str, names: Mapping[str, int]) -> Any:
    """Return what an expression says for these sizes; a remainder of zero parts is no condition that holds.

    >>> value_of("(n0 % 4) == 0", {"n0": 8})
    True
    """
    tree = _tree(text)
    try:
        return _value(tree, names)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return False


@lru_cache(maxsize=4096)
def _tree(text: str) -> ast.expr:
    try:
        if len(text) > _LONGEST:
            raise ValueError
        found = ast.parse(text, mode="eval").body
        _check(found)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ArtifactError("a condition on sizes is malformed.", got=reprlib.repr(text)) from None
    return found


def _check(node: ast.expr) -> None:
    """Raise ValueError at what is no arithmetic of whole numbers."""
    if isinstance(node, ast.Constant):
        fine = isinstance(node.value, (bool, int, float)) and abs(node.value) <= _LARGEST
    elif isinstance(node, ast.Name):
        fine = _NAME.match(node.id) is not None
    elif isinstance(node, ast.Call):
        fine = ast.unparse(node.func) in _CALLS and bool(node.args) and not node.keywords
    elif isinstance(node, ast.BinOp):
        fine = type(node.op) in _BINARY
        if isinstance(node.op, ast.Pow):
            fine = isinstance(node.right, ast.Constant) and isinstance(node.right.value, (int, float)) and 0 <= node.right.value <= _HIGHEST
    elif isinstance(node, ast.UnaryOp):
        fine = isinstance(node.op, (ast.USub, ast.Not))
    else:
        fine = isinstance(node, ast.BoolOp) or (isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops))
    if not fine:
        raise ValueError(ast.dump(node))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr) and not (isinstance(node, ast.Call) and child is node.func):
            _check(child)


def _value(node: ast.expr, names: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.Call):
        return _CALLS[ast.unparse(node.func)](*(_value(item, names) for item in node.args))
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand, names) if isinstance(node.op, ast.USub) else not _value(node.operand, names)
    if isinstance(node, ast.BoolOp):
        judge = all if isinstance(node.op, ast.And) else any
        return judge(_value(item, names) for item in node.values)
    assert isinstance(node, ast.Compare)
    values = [_value(item, names) for item in (node.left, *node.comparators)]
    return all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False))
