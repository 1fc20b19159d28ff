"""Marks: an operator that computes nothing and shows in a trace where something will stand. Beside the trace.

In: a tensor, while ``torch.export`` traces, and a label. Out: the same tensor; the trace has a node there that carries the label, until
whoever put the mark replaces it. Nothing but a trace ever holds one.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, fx

_NAME = "geta_nb::mark"


def _define() -> None:
    """Make the operator known to torch, once a process: a module may be loaded again (``%autoreload``)."""

    @torch.library.custom_op(_NAME, mutates_args=())
    def same(x: Tensor, label: str) -> Tensor:
        return x.clone()

    @same.register_fake
    def _(x: Tensor, label: str) -> Tensor:
        # laid out as x, so that what follows is traced as if no mark were there
        return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=x.device)


if not hasattr(torch.ops.geta_nb, "mark"):
    _define()
MARK = torch.ops.geta_nb.mark.default


def mark(x: Tensor, label: str) -> Tensor:
    """Return ``x``, any shape and dtype; a trace keeps a node with ``label`` there."""
    return cast(Tensor, MARK(x, label))


def is_mark(node: fx.Node) -> bool:
    """Whether a node is a mark."""
    return node.op == "call_function" and node.target is MARK


def mark_label(node: fx.Node) -> str:
    """Return the label of a mark."""
    return str(node.args[1])


def marked_value(node: fx.Node) -> fx.Node:
    """Return the node whose value a mark hands on."""
    value = node.args[0]
    assert isinstance(value, fx.Node)
    return value


def drop_mark(node: fx.Node) -> None:
    """Take a mark out of its graph."""
    node.replace_all_uses_with(marked_value(node))
    node.graph.erase_node(node)
