"""What removed channels still give as a constant, sigmoid(0) or a norm without scale, goes into the bias of the sum that reads it.

Comes in: the masked network, its trace and what is cut. Goes out: biases with the constants added. Between masking and the cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.fx import _pytree as fx_pytree

from geta_nb.errors import SubnetError
from geta_nb.graph import eval_mode, module_path, operator_name
from geta_nb.groups import Fold
from geta_nb.subnet.cut import Cut


def fold_constants(
    cut: Cut, module: fx.GraphModule, names: Mapping[str, str], tensors: Mapping[str, Tensor], live: Mapping[str, Tensor], inputs: Any
) -> None:
    """Add to biases, in place, what the channels that are cut away give as constants.

    Args:
        cut: labels, groups and what stays.
        module: trace of the masked network.
        names: get_attr target -> own name.
        tensors: own name -> value of the subnet before it is sliced; biases among them are changed.
        live: own name -> value in the masked network.
        inputs: (args, kwargs) to run the trace on: a constant is the same for all.

    Raises:
        SubnetError: a channel that should give a constant does not, which is a defect of this package.
    """
    folds = [(fold, removed) for fold in cut.state.findings.folds if (removed := _removed(cut, fold)).any()]
    if not folds:
        return
    wanted = {node for fold, _ in folds for node in _operands(fold.node)}
    with torch.no_grad(), eval_mode(module):
        values = _Probe(module, names, live, wanted).values(inputs)
        for fold, removed in folds:
            data, weight, bias = _operands(fold.node)
            tensors[names[str(bias.target)]].add_(_constant(fold.node, values[data], values[weight], removed))


def _removed(cut: Cut, fold: Fold) -> NDArray[np.bool_]:
    return fold.steady & ~cut.table.kept(fold.labels, cut.alive)


def _operands(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node]:
    bias: Any = node.args[2] if len(node.args) > 2 else node.kwargs["bias"]
    data, weight = (item for item in node.args[:2] if isinstance(item, fx.Node))
    return data, weight, bias


def _constant(node: fx.Node, data: Tensor, weight: Tensor, removed: NDArray[np.bool_]) -> Tensor:
    """Return what the removed channels of ``data`` add to each output channel: the operator itself, run on them alone."""
    axis = data.dim() - 1 if operator_name(node) == "linear" else 1
    index = torch.from_numpy(np.flatnonzero(removed)).to(data.device)
    channels = data.index_select(axis, index).movedim(axis, -1).reshape(-1, len(index))
    if not torch.equal(channels, channels[:1].expand_as(channels)):
        channels = channels.double()
        spread = float((channels - channels[:1]).abs().max())
        if not spread <= 1e-6 * float(channels.abs().max()):  # pooling may round
            raise SubnetError(
                "construct_subnet: a removed channel does not give a constant.", at=module_path(node), expected="the same value everywhere",
                got=f"a spread of {spread:.3g}", hint="please report the model; nothing was changed",
            )
    alone = torch.zeros_like(data[:1])
    alone.index_copy_(axis, index, data[:1].index_select(axis, index))
    args: list[Any] = list(node.args)
    args[:3] = [alone, weight, None]
    out: Tensor = node.target(*args, **{key: value for key, value in node.kwargs.items() if key != "bias"})  # type: ignore[operator]
    return out.movedim(out.dim() - 1 if operator_name(node) == "linear" else 1, -1).reshape(-1, len(weight))[0]


class _Probe(fx.Interpreter):
    """Runs a trace on the numbers that the model has now, as far as some nodes, and keeps their values."""

    def __init__(self, module: fx.GraphModule, names: Mapping[str, str], live: Mapping[str, Tensor], wanted: set[fx.Node]) -> None:
        super().__init__(module)
        self._names, self._live, self._wanted = names, live, set(wanted)
        self._kept: dict[fx.Node, Tensor] = {}

    def values(self, inputs: Any) -> dict[fx.Node, Tensor]:
        """Return the values of the wanted nodes."""
        with suppress(_Done):
            self.run(*fx_pytree.tree_flatten_spec(inputs, self.module._in_spec), enable_io_processing=False)  # type: ignore[arg-type]
        return self._kept

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the model's own tensor, which may have moved since it was traced."""
        found = self._live.get(self._names.get(str(target), ""))
        return found if found is not None else super().get_attr(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Keep the value of a wanted node; stop after the last."""
        value = super().run_node(n)
        if n in self._wanted:
            self._kept[n] = value
            if len(self._kept) == len(self._wanted):
                raise _Done
        return value


class _Done(Exception):
    """All wanted values are there."""
