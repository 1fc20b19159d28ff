"""A batch axis that a file cannot leave open, in words: which inputs, and why. Used by ``export``.

In: the program that could not be translated and the exporter's error, or inputs that leave no choice. Out: one sentence, and a warning.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from geta_nb.errors import GetaWarning
from geta_nb.graph import operator_name

_NODE = re.compile(r"translating node %(\w+)")


def why_traced(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return why torch's exporter fixed the batch while it traced."""
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    sizes = sorted({leaf.shape[0] for leaf in tensors if leaf.ndim})
    if len(sizes) > 1:
        return f"the inputs have different sizes there, {' and '.join(map(str, sizes))}, so that no axis is the batch of all"
    if any(not leaf.ndim for leaf in tensors):
        return "an input without axes stands beside them"
    return "the network computes with this size, and torch.export found no other that it works for"


def why_untranslated(program: torch.export.ExportedProgram, error: BaseException) -> str:
    """Return what of a program with an open batch ONNX cannot say."""
    names, reason = [], ""
    cause: BaseException | None = error
    while cause is not None:
        names += _NODE.findall(str(cause))
        reason = f"{type(cause).__name__}: {next((line.strip() for line in str(cause).splitlines() if line.strip()), '')}"[:200]
        cause = cause.__cause__
    nodes = {node.name: node for node in program.graph.nodes}
    node = next((nodes[name] for name in names if name in nodes), None)
    if node is None:
        return f"with an open batch torch's exporter says {reason}"
    attributes = _sizes(node)
    if not attributes:
        return f"{operator_name(node)} with an open batch: {reason}"
    return f"{operator_name(node)} takes {' and '.join(attributes)} from the batch size, where ONNX wants a number that stands in the file"


def _sizes(node: fx.Node) -> list[str]:
    """Names of the arguments of an operator that are sizes of something."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    names = [argument.name for argument in node.target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return [name for name, value in given.items() if any(_is_size(leaf) for leaf in pytree.tree_leaves(value))]


def _is_size(value: object) -> bool:
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.SymInt)


def note_fixed(model: onnx.ModelProto, why: str) -> str:
    """Warn of a file whose batch is fixed; return the sentence for its metadata."""
    sizes = {item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in model.graph.input}
    inputs = ", ".join(f"{name}: axis 0 is {shape[0]}" for name, shape in sizes.items() if shape)
    warnings.warn(
        GetaWarning(
            "export_onnx: the batch of this file is fixed.", at=inputs or None, expected="a first axis that may have any size",
            got=f"a file for this size alone: {why}", hint="example inputs of the size that you serve, and a file for each size",
        ),
        stacklevel=6,
    )
    return f"{inputs}: {why}" if inputs else why
