"""What an operator was told besides its tensors: stride, padding, groups, eps, axes. In: a node of a trace. Out: names and words. Pure."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from geta_nb.display.wording import clean
from geta_nb.graph import hint

ALWAYS = {"stride", "padding", "dilation", "groups", "eps", "dim", "keepdim"}
"""Shown where the operator goes by its default, too."""
LONGEST = 160
_UNSAID = ("dtype", "layout", "device", "pin_memory", "memory_format", "cudnn_enabled", "half_to_float", "implicit", "generator", "self")


def attributes(node: fx.Node) -> list[tuple[str, str]]:
    """Return name and value of everything an operator takes that is no tensor, in the order of its signature.

    A size that is computed in the graph stands as what it was for the example inputs.
    """
    if node.op != "call_function":
        return []
    if node.target is operator.getitem:
        return [("output", clean(node.args[1]))]
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    found = ((name, _words(value)) for name, value in _arguments(node, node.target))
    return [(clean(name), words) for name, words in found if words is not None]


def _arguments(node: fx.Node, target: torch._ops.OpOverload) -> Iterator[tuple[str, Any]]:
    for position, argument in enumerate(target._schema.arguments):
        name, default = argument.name, argument.default_value if argument.has_default_value() else None
        given = position < len(node.args) or name in node.kwargs
        value = node.args[position] if position < len(node.args) else node.kwargs.get(name, default)
        told = name not in _UNSAID or (name == "dtype" and given)
        if value is not None and told and (name in ALWAYS or (given and value != default)):
            yield name, value


def _words(value: object) -> str | None:
    """The value as text; None for a tensor, or a list of them."""
    if isinstance(value, fx.Node):
        known = value.meta.get("val")
        return str(hint(known)) if isinstance(known, (int, torch.SymInt)) else str(known) if isinstance(known, float) else None
    if isinstance(value, (list, tuple)):
        parts = [_words(item) for item in value]
        listed = [part for part in parts if part is not None]
        return _short(", ".join(listed)) if len(listed) == len(parts) and parts else None
    if isinstance(value, torch.SymInt):
        return str(hint(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return _short(clean(str(value).removeprefix("torch."))) if value is not None else "–"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
