"""Whether a quantizer branch keeps zero zero: measured by running it, not listed. Serves the branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from geta_nb.graph import attribute_tensor


def keeps_zero(module: fx.GraphModule, nodes: Sequence[fx.Node], entry: fx.Node, last: fx.Node) -> bool:
    """Return whether zeros that go in at ``entry`` come out of ``last`` as zeros.

    Runs the branch with the numbers that its parameters have now, and with others where they train: an offset that is zero today may not
    be so tomorrow. Numbers that are not usable yet (an uncalibrated range) are replaced by ones.
    """
    now = _run(module, nodes, entry, last, lambda value: value)
    if now is None or not bool(now.isfinite().all()):
        now = _run(module, nodes, entry, last, torch.ones_like)
    later = _run(module, nodes, entry, last, lambda value: value * 0.9 + 0.37 if value.requires_grad else value)
    return now is not None and bool((now == 0).all()) and (later is None or not bool((later != 0).any() and later.isfinite().all()))


def _run(
    module: fx.GraphModule, nodes: Sequence[fx.Node], entry: fx.Node, last: fx.Node, change: Callable[[Tensor], Tensor]
) -> Tensor | None:
    values: dict[fx.Node, Any] = {entry: torch.zeros(4, dtype=entry.meta["val"].dtype, device="cpu")}

    def value_of(node: fx.Node) -> Any:
        if node not in values:
            if node.op == "get_attr":
                tensor = attribute_tensor(module, str(node.target))
                values[node] = change(torch.ones(tensor.shape, dtype=tensor.dtype, device="cpu") if tensor.is_meta else tensor.cpu())
            else:
                values[node] = node.target(*fx.map_arg(node.args, value_of), **fx.map_arg(node.kwargs, value_of))  # type: ignore[operator]
        return values[node]

    try:
        with torch.no_grad(), torch.device("cpu"):
            for node in nodes:
                value_of(node)
            result = value_of(last)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):
        return None  # an operator that wants the real shape: nobody knows, so it does not keep zero
    return result if isinstance(result, Tensor) else None
