"""The last trace of a model, kept beside it: a second analysis of a network that is the same needs no second run of the exporter.

In: a model, example inputs, and what is to be quantized. Out: a trace, made now or a copy of the one that is kept. What is kept hangs on
the model weakly and is no part of it: nothing of it is copied, pickled or saved with the model, and it goes with it. It is handed out
where the fingerprint says that nothing has changed which a trace depends on; where nobody can say so, the exporter runs.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from geta_nb.config import QuantConfig
from geta_nb.graph import (
    Fingerprint,
    Own,
    Sizes,
    Trace,
    Unreadable,
    drop_mark,
    fingerprint,
    is_mark,
    mark_label,
    marked_value,
    note_taken,
    trace_model,
)
from geta_nb.groups import RULES, understood
from geta_nb.qadg.names import own_names
from geta_nb.quantizers import WEIGHT, OwnTensors, Quantizer, Quantizers, mark_of, marked

Sites = frozenset[tuple[str, str, int]]
"""Where quantizers stand: kind, name, and number of axes of the step size."""


def _is_ours(hook: Any) -> bool:
    return getattr(hook, "__module__", None) == Quantizer.__module__


_OWN = Own(Quantizer, _is_ours)


@dataclass
class Kept:
    """A trace, and when it may be used again.

    Attributes:
        mark: fingerprint of model and inputs.
        rules: names of the operators that had a rule.
        labels: layer -> kind of the mark before its input.
        trace: without inputs, never handed out itself.
        inputs: the very input tensors that the model took, and their versions.
        agreed: sites of quantizers that the model's own forward was seen to use.
    """

    mark: Fingerprint
    rules: frozenset[str]
    labels: frozenset[str]
    trace: Trace
    inputs: list[tuple[weakref.ReferenceType[Tensor], int]]
    agreed: list[Sites] = field(default_factory=list)

    def serves(self, now: Fingerprint, labels: frozenset[str]) -> bool:
        """Whether a trace made now would be the same, but for marks that it would not have."""
        fits = labels == self.labels or (labels < self.labels and not self.trace.bound_marks)
        return fits and self.rules == frozenset(RULES) and self.mark.same(now)

    def has_agreed(self, quantizers: Quantizers) -> bool:
        """Whether the model's forward was seen to use all these quantizers where the graph reads them."""
        return any(_sites(quantizers) <= sites for sites in self.agreed)

    def note_agreement(self, quantizers: Quantizers) -> None:
        """Remember that it does."""
        self.agreed.append(_sites(quantizers))


_STORE: weakref.WeakKeyDictionary[nn.Module, dict[Sizes, Kept]] = weakref.WeakKeyDictionary()


def traced(
    model: nn.Module,
    tensors: OwnTensors,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    config: QuantConfig,
    sizes: Sizes,
    training: Iterable[str] = (),
) -> tuple[Trace, dict[str, str], Kept | None]:
    """Return a trace of the plain model with marks, its names, and what is kept of it; None where nothing is.

    Args:
        model: quantized already or not.
        tensors: its own.
        args, kwargs: example inputs.
        config: what is to be quantized.
        sizes, training: as for :func:`~geta_nb.graph.trace_model`; a trace with branches of training is not kept.

    Raises:
        TraceError: torch's exporter cannot trace it.
    """
    now = None if (training := tuple(training)) else _mark(model, args, kwargs)
    with marked(model, config):
        labels = _labels(model)
        kept = _STORE.get(model, {}).get(sizes)
        if now is not None and kept is not None and kept.serves(now, frozenset(labels)):
            trace = _handed_out(kept, labels, args, kwargs)
            return trace, _names(tensors, trace), kept
        if not training:
            _STORE.get(model, {}).pop(sizes, None)
        trace = trace_model(model, args, kwargs, understood=understood, sizes=sizes, training=training)
    names = _names(tensors, trace)
    if now is None or (after := _mark(model, args, kwargs)) is None or not after.same(now):
        return trace, names, None  # nobody can say what it depends on, or it has changed under the exporter
    twin = trace.copied((), {})
    if not _settle_weights(twin.module):
        return trace, names, None
    kept = Kept(now, frozenset(RULES), frozenset(labels), twin, _versions(args, kwargs))
    _STORE.setdefault(model, {})[sizes] = kept
    if sizes == "batch":
        note_taken(model, _was_taken)
    return trace, names, kept


def _names(tensors: OwnTensors, trace: Trace) -> dict[str, str]:
    with torch.device("cpu"):  # whatever device is the default
        return own_names(tensors, trace.module)


def _mark(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fingerprint | None:
    try:
        return fingerprint(model, args, kwargs, _OWN)
    except Unreadable:
        return None


def _labels(model: nn.Module) -> dict[str, str]:
    """Return layer -> label of each mark before an input that a marked model would put into a trace."""
    found = []
    for module in model.modules():
        if isinstance(module, Quantizer) and isinstance(module.stand_in, partial):
            found.append(str(module.stand_in.keywords["label"]))
        for hook in module._forward_pre_hooks.values():
            if getattr(hook, "__module__", None) == marked.__module__:
                found.append(str(inspect.getclosurevars(hook).nonlocals["label"]))
    kinds = [(*mark_of(label), label) for label in found]
    return {layer: label for kind, layer, label in kinds if kind != WEIGHT}


def _handed_out(kept: Kept, labels: Mapping[str, str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    """Return a copy of a kept trace in which the marks are those that are asked for; whoever puts branches into it compiles it."""
    trace = kept.trace.copied(args, kwargs)
    for node in [node for node in trace.module.graph.nodes if is_mark(node)]:
        label = labels.get(mark_of(mark_label(node))[1])
        if label is None:
            drop_mark(node)
        else:
            node.update_arg(1, label)
    return trace


def _settle_weights(module: fx.GraphModule) -> bool:
    """Take the marks of weights out, which stand where the graph reads a parameter; False where one stands elsewhere."""
    marks = [node for node in module.graph.nodes if is_mark(node) and mark_of(mark_label(node))[0] == WEIGHT]
    if not all(marked_value(node).op == "get_attr" for node in marks):
        return False
    for node in marks:
        drop_mark(node)
    return True


def _versions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[weakref.ReferenceType[Tensor], int]]:
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return [(weakref.ref(leaf), -1 if leaf.is_inference() else leaf._version) for leaf in leaves]


def _was_taken(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the model has not changed since it took these very inputs, of these very values."""
    kept, now = _STORE.get(model, {}).get("batch"), _versions(args, kwargs)
    if kept is None or any(version < 0 for _, version in now):
        return False
    same = [(one(), version) for one, version in kept.inputs], [(one(), version) for one, version in now]
    alike = len(same[0]) == len(same[1]) and all(a is b and v == w for (a, v), (b, w) in zip(*same, strict=True))
    return alike and (mark := _mark(model, args, kwargs)) is not None and kept.mark.same(mark)


def _sites(quantizers: Quantizers) -> Sites:
    weights = {("weight", name, quantizers.weights[layer].step_size.ndim) for name, layer in quantizers.parameter_layer.items()}
    return frozenset(weights | {("input", layer, quantizer.step_size.ndim) for layer, quantizer in quantizers.activations.items()})
