"""Does every read of a quantized parameter go through its quantizer? One run says so, without a copy of a weight. Before the agreement.

In: the model with its quantizers, its graph, example inputs, and what the plain model did with them. Out: yes, or that this does not show
it; then model and graph have to be run side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree

from geta_nb.graph import Ran, Recorder, eval_mode, outputs_of, without_numbers
from geta_nb.qadg.folded import QADG
from geta_nb.quantizers import Quantizer, Quantizers, parameter_tensors, standing_in


def reads_through(
    model: nn.Module, qadg: QADG, quantizers: Quantizers, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Ran
) -> bool:
    """Whether one run shows that the model reads what is quantized through its quantizers alone, where the graph has them.

    While it runs, quantizers hand on what they are given. No operator may see the memory of a quantized parameter but through one; each
    quantizer of an input must run as often as the graph has its branch; and the model must do what the plain one did, which it does not
    where a forward asks of what class a layer or a weight is: the same steps, in a run without numbers where these are known, which
    spares the work of a forward; else it must give the same outputs.
    """
    if qadg.trace.bound_marks:
        return False
    own = parameter_tensors(model)
    watched = [own[name] for name in quantizers.parameter_layer]
    written = Counter(qadg.layers[branch.exit] for branch in qadg.branches if branch.kind == "inserted" and branch.exit in qadg.layers)
    expected = {layer: written[layer] for layer in quantizers.activations if written[layer]}
    for run in (_same_steps, _same_outputs):
        try:
            watch, counts = _Watch(watched, (*own.values(), *model.buffers())), Counter[str]()
            stand_ins: dict[Quantizer, Any] = dict.fromkeys(quantizers.weights.values(), watch.hand_on)
            stand_ins |= {quantizer: _counting(counts, layer) for layer, quantizer in quantizers.activations.items()}
            with standing_in(stand_ins):
                same = run(model, args, kwargs, plain, watch)
        except Exception:  # of a tensor without memory of its own, of one without numbers, or of the user's code
            continue
        if same and watch.clean and counts == expected:
            return True
    return False


def _same_steps(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Ran, watch: _Watch) -> bool:
    """Whether the model does what it did; False where it keeps what has no numbers: the run after this one replaces it."""
    if plain.steps is None or not plain.steps.is_long:
        return False
    with without_numbers(args, kwargs) as (given, named), torch.no_grad(), eval_mode(model):
        watch.take(pytree.tree_leaves((given, named)))
        watch.expected = plain.steps.operators
        with watch:
            out = model(*given, **named)
        same = watch.steps(out) == plain.steps
    del out, given, named
    return same and watch.are_gone()


def _same_outputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Ran, watch: _Watch) -> bool:
    with watch:
        found = outputs_of(model, args, kwargs)
    return len(found) == len(plain.outputs) and all(map(_equal, found, plain.outputs))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _counting(counts: Counter[str], layer: str) -> Any:
    def hand_on(x: Tensor) -> Tensor:
        counts[layer] += 1
        return x

    return hand_on


class _Watch(Recorder):
    """Sees which operators are given the memory of quantized parameters, and whether a quantizer handed it to them."""

    def __init__(self, parameters: list[nn.Parameter], tensors: Iterable[Tensor] = ()) -> None:
        super().__init__(tensors)
        self._memory = {_memory_of(parameter) for parameter in parameters}
        self._handed: dict[int, Tensor] = {}  # held, so that no number becomes another tensor's
        self._handing, self.clean = False, 0 not in self._memory

    def hand_on(self, x: Tensor) -> Tensor:
        """Stand in for a quantizer: another name of what it is given."""
        if _memory_of(x) not in self._memory:
            self.clean = False
            return x
        self._handing = True
        try:
            given = x.view_as(x)
        finally:
            self._handing = False
        self.rename(given, x)
        return given

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and _memory_of(leaf) in self._memory]
        if not self._handing and any(id(leaf) not in self._handed for leaf in given):
            self.clean = False
        out = func(*args, **(kwargs or {})) if self._handing else super().__torch_dispatch__(func, types, args, kwargs)
        if given:
            for leaf in pytree.tree_leaves(out):
                if isinstance(leaf, Tensor) and _memory_of(leaf) in self._memory:
                    self._handed[id(leaf)] = leaf
        return out


def _memory_of(tensor: Tensor) -> int:
    """Return where the memory of a tensor begins; 0 where it has none, and below that where it has shape and type alone."""
    return -1 if isinstance(tensor, FakeTensor) else tensor.untyped_storage().data_ptr()
