"""Recurrent layers: a hidden unit goes with its row in every gate, its column, and its place in the state."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from torch import fx

from geta_nb.groups.labels import UNSTEADY, LabelArray, Labels, single_axis
from geta_nb.groups.operators.axes import drop_axes, insert_axis
from geta_nb.groups.operators.contraction import contract
from geta_nb.groups.operators.registry import Call, rule
from geta_nb.groups.reshaping import reshape

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@rule(*_GATES)
def recurrent(call: Call) -> Any:
    """One or more layers, in one or both directions.

    A unit whose rows and biases are zero has the candidate value tanh(0) = 0 and closes to half: from a zero state it stays at zero. All
    layers and directions share one state tensor, so that the units of one number go together.
    """
    data, states, weights = call.args[0], call.args[1], call.args[2]
    if call.node.target._overloadname != "input":  # type: ignore[union-attr]
        return call.unlabelled("a packed sequence")
    biases, layers, both = bool(call.args[3]), int(call.args[4]), bool(call.args[7])
    directions, parts = 2 if both else 1, 4 if biases else 2
    if len(weights) != layers * directions * parts:
        return call.unlabelled("a projected recurrent state")
    state = _state(call, states if isinstance(states, list) else [states])
    steps = prod(data.shape[:-1])
    inputs = _vector(call, data)
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            start = (layer * directions + direction) * parts
            state = _step(call, inputs, state, start, parts, steps)
            outputs.append(state)
        inputs = _joined(outputs)
    shapes = [shape or () for shape in call.shapes]
    return tuple(_last_axis(inputs if i == 0 else state, shape) for i, shape in enumerate(shapes))


def _vector(call: Call, labels: Labels) -> Labels:
    """Labels of the last axis alone: all others count images or time."""
    lead = list(range(len(labels.shape) - 1))
    return Labels(labels.shape[-1:], drop_axes(call.fixed(lead, labels, "time or batch"), lead).arrays, "data")


def _state(call: Call, states: list[Labels]) -> Labels:
    """Labels of the units in the initial state; a learned one is zeroed with them."""
    vectors = call.space.align([_vector(call, labels) for labels in states], call.reason("aligned with a fixed state"))
    call.produce([labels for labels in states if labels.source == "param"], "data")
    return _merged(call, vectors)


def _merged(call: Call, vectors: list[Labels]) -> Labels:
    """Aligned vectors as one; zero where all are."""
    arrays = [array for labels in vectors for array in labels.arrays]
    if not arrays:
        return vectors[0]
    worst = np.maximum.reduce([array.spoilers for array in arrays])
    marks = np.where((worst > 0) & (worst < UNSTEADY), worst + UNSTEADY, worst)
    return Labels(vectors[0].shape, (LabelArray(arrays[0].labels, marks, min(array.origin for array in arrays)),), "data")


def _step(call: Call, inputs: Labels, state: Labels, start: int, parts: int, steps: int) -> Labels:
    """Labels of a layer's units from those of its input, its state and its weights."""
    gates = _GATES[call.name]
    nodes: Any = call.node.args[2]
    terms = []
    for position, source in enumerate((inputs, state)):
        weight = _gated(call, call.args[2][start + position], gates)
        data: Any = call.node.args[0]
        operands: tuple[fx.Node | None, fx.Node | None] = (data if position == 0 else None, nodes[start + position])
        terms.append(contract(call, insert_axis(source, 0), weight, [-1], macs=gates * steps, operands=operands))
    biases = [_gated(call, call.args[2][start + position], gates) for position in range(2, parts)]
    aligned = call.space.align([state, *terms, *biases], call.reason("aligned with a fixed unit"))
    call.produce(aligned[3:], "data")
    return _merged(call, aligned)


def _gated(call: Call, labels: Labels, gates: int) -> Labels:
    """Rows of a weight, [gates * units, ...], as units that go in all gates at once, [units, ...]."""
    units, *rest = labels.shape
    split = reshape(call.space, labels, (gates, units // gates, *rest), call.reason("gates"))
    return drop_axes(call.space.fix_axes(split, [0], call.reason("gates")), [0])


def _joined(outputs: list[Labels]) -> Labels:
    """Both directions side by side."""
    arrays = [labels.covering(0) for labels in outputs]
    size = sum(labels.shape[0] for labels in outputs)
    if any(array is None for array in arrays):
        return Labels((size,), (), "data")
    found = [array for array in arrays if array is not None]
    joined = LabelArray(np.concatenate([a.labels for a in found]), np.concatenate([a.spoilers for a in found]), found[0].origin)
    return Labels((size,), (joined,), "data")


def _last_axis(vector: Labels, shape: tuple[int, ...]) -> Labels:
    array = vector.covering(0)
    if array is None or not shape:
        return Labels(shape, (), "data")
    return Labels(shape, (single_axis(shape, len(shape) - 1, array.labels, array.spoilers, origin=array.origin),), "data")
