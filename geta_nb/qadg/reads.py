"""Does every read of a quantized parameter go through its quantizer? One run says so, without a copy of a weight. Before the agreement.

In: the model with its quantizers, its graph, example inputs, and what the plain model gave for them. Out: yes, or that this does not show
it; then model and graph have to be run side by side.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from geta_nb.graph import outputs_of
from geta_nb.qadg.folded import QADG
from geta_nb.quantizers import Quantizer, Quantizers, parameter_tensors, standing_in

_ROWS = torch.ops.aten.embedding.default


def reads_through(
    model: nn.Module, qadg: QADG, quantizers: Quantizers, args: tuple[Any, ...], kwargs: dict[str, Any], plain: list[Tensor]
) -> bool:
    """Whether one run shows that the model reads what is quantized through its quantizers alone, where the graph has them.

    While it runs, quantizers hand on what they are given. No operator may see the memory of a quantized parameter but through one; each
    quantizer of an input must run as often as the graph has its branch; and the outputs must be those of the plain model, which they are
    not where a forward asks of what class a layer or a weight is.
    """
    if qadg.trace.bound_marks or quantizers.computed:  # what is computed anew has no memory to watch
        return False
    own = parameter_tensors(model)
    try:
        watch = _Watch([own[name] for name in quantizers.parameter_layer])
        counts: Counter[str] = Counter()
        stand_ins: dict[Quantizer, Any] = dict.fromkeys(quantizers.weights.values(), watch.hand_on)
        stand_ins |= {quantizer: _counting(counts, layer) for layer, quantizer in quantizers.activations.items()}
        with standing_in(stand_ins), watch:
            found = outputs_of(model, args, kwargs)
    except Exception:  # of a tensor without memory of its own, or of the user's code
        return False
    written = Counter(qadg.layers[branch.exit] for branch in qadg.branches if branch.kind == "inserted" and branch.exit in qadg.layers)
    same = len(found) == len(plain) and all(map(_equal, found, plain))
    return same and watch.clean and counts == {layer: written[layer] for layer in quantizers.activations if written[layer]}


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _counting(counts: Counter[str], layer: str) -> Any:
    def hand_on(x: Tensor) -> Tensor:
        counts[layer] += 1
        return x

    return hand_on


class _Watch(TorchDispatchMode):
    """Sees which operators are given the memory of quantized parameters, and whether a quantizer handed it to them."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = {_place(parameter) for parameter in parameters}
        self._handed: dict[int, Tensor] = {}  # held, so that no number becomes another tensor's
        self._rows: Tensor | None = None
        self._through, self._handing = 0 not in self._memory, False

    @property
    def clean(self) -> bool:
        """Whether no read went past a quantizer."""
        return self._through and self._rows is None

    def hand_on(self, x: Tensor) -> Tensor:
        """Stand in for a quantizer: another name of what it is given; rows of a table were read just before."""
        if x is self._rows:
            self._rows = None
            return x
        if _place(x) not in self._memory:
            self._through = False
            return x
        self._handing = True
        try:
            return x.view_as(x)
        finally:
            self._handing = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and _place(leaf) in self._memory]
        past = not self._handing and any(id(leaf) not in self._handed for leaf in given)
        out = func(*args, **(kwargs or {}))
        if past and func is _ROWS and self._rows is None:
            self._rows = out
        elif past:
            self._through = False
        if given:
            for leaf in pytree.tree_leaves(out):
                if isinstance(leaf, Tensor) and _place(leaf) in self._memory:
                    self._handed[id(leaf)] = leaf
        return out


def _place(tensor: Tensor) -> int:
    """Return where the memory of a tensor begins; 0 where it has none."""
    return tensor.untyped_storage().data_ptr()
