"""Weights that others compute, as plain ones: a subnet stores the weight itself, on the steps of its quantizer, and nothing it came from.

In: a model and its graph. Out: its tensors and their labels with such weights in the place of what they are computed from; and a copy of
the model in which they are plain parameters. Between the network and the cut.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from geta_nb.groups import Propagation
from geta_nb.qadg import Graphed, labels_of_computed, parts_of
from geta_nb.quantizers import ComputedWeight, WeightQuantizer, computed, is_last, materialise, unregister


@dataclass(frozen=True)
class Plain:
    """Tensors of a network as its subnet has them, before they are sliced.

    Attributes:
        parameters, buffers: own name -> tensor.
        state: labels; of these tensors among others.
        computed: layer -> name of each weight that others compute.
    """

    parameters: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    state: Propagation
    computed: dict[str, str]


def with_plain_weights(
    model: nn.Module, found: Graphed, parameters: Mapping[str, nn.Parameter], buffers: Mapping[str, Tensor]
) -> Plain:
    """Return the tensors of a subnet: quantized weights that others compute, not yet on their steps, and all that computes no weight."""
    weights = labels_of_computed(found.qadg, found.state, found.quantizers)
    if not weights:
        return Plain(dict(parameters), dict(buffers), found.state, {})
    gone = parts_of(weights, {**buffers, **parameters})
    first = {found.quantizers.computed[name]: name for name in weights}
    values = {name: _computed(model, name).as_parameter() for name in weights}
    tied = {name: first[layer] for name, layer in found.quantizers.computed.items() if layer in first}  # one module under several paths
    made = {name: values[own] for name, own in tied.items()}
    kept = {name: p for name, p in parameters.items() if id(p) not in gone}
    labels = {name: weights[own].labels for name, own in tied.items()}
    tensors = {name: item for name, item in found.state.tensors.items() if name in kept or name in buffers}
    return Plain(
        {**kept, **made},
        {name: b for name, b in buffers.items() if id(b) not in gone},
        replace(found.state, tensors={**tensors, **labels}),
        first,
    )


def _computed(model: nn.Module, name: str) -> ComputedWeight:
    path, _, leaf = name.rpartition(".")
    return ComputedWeight(model.get_submodule(path), leaf)


def dense_twin(model: nn.Module) -> nn.Module:
    """Return a copy of the model with plain parameters where it had quantized ones; others' parametrizations stay where ours is not.

    Its tensors are those of the model, not copies, but for weights that others compute.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, dict(shared))
    for module in list(twin.modules()):
        for name, tensors in computed(module).items():
            if is_last(module, name):
                materialise(module, name)
            elif any(isinstance(item, WeightQuantizer) for item in tensors):
                unregister(module, name)
    return twin
