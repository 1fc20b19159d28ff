"""A trace in the model's own names: what each ``get_attr`` node reads, and where a tensor stands under a name. Beside the analysis.

In: a model's tensors and a trace, in which a quantized parameter is called ``c.parametrizations.weight.original``. Out: the same trace,
in which it is called ``c.weight``, and the names of what is the model's.
"""

from __future__ import annotations

from torch import Tensor, fx, nn

from geta_nb.graph import attribute_tensor, owner_of
from geta_nb.quantizers import OwnTensors


def own_names(tensors: OwnTensors, module: fx.GraphModule) -> dict[str, str]:
    """Map get_attr targets to the model's names, tied tensors to one; what is not the model's (a constant) is left out.

    Targets inside parametrizations become the plain names of their parameters.
    """
    known: dict[int, str] = {}
    own: dict[str, Tensor] = {**tensors.parameters, **tensors.buffers}
    for name, tensor in own.items():
        known.setdefault(id(tensor), name)
    names = {}
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        target = str(node.target)
        plain = tensors.plain.get(target, target)
        if plain != target:
            place_tensor(module, plain, attribute_tensor(module, target))
            node.target = plain
            node._rename(plain.replace(".", "_"))
        found = known.get(id(attribute_tensor(module, plain))) or plain
        if found in own:
            names[plain] = known[id(own[found])]
    return names


def place_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Let ``module`` have a tensor under a dotted name; one that is there already stays."""
    owner, leaf = owner_of(module, name)
    if not hasattr(owner, leaf):
        setattr(owner, leaf, tensor)
