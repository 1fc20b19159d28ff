"""What a plain graph asks to be quantized: the matrices and inputs that a matrix operator reads. Between the trace and the quantizers.

In: a trace with marks before the inputs that could be quantized, and behind what others compute weights with. Out: the sites, and a graph
in which only marks that will be replaced are left: those of sites, and of quantizers that are there already.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from geta_nb.graph import drop_mark, is_mark, mark_label, marked_value, nonnegative_nodes, operator_name, shape_of
from geta_nb.groups import is_pointwise
from geta_nb.qadg.branches import COMPUTE, readers
from geta_nb.qadg.computed import feeds_matrix_operator, find_computed
from geta_nb.quantizers import CANDIDATE, WEIGHT, Asked, mark_of

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TURNED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = ("mm", "matmul", "addmm")
"""Operators whose last two operands are multiplied."""


def find_sites(module: fx.GraphModule, names: Mapping[str, str], computed: Mapping[str, str]) -> Asked:
    """Return what the graph asks for, and take the marks of everything else out of it.

    Args:
        module: plain trace with marks.
        names: get_attr target -> own name of a parameter or buffer.
        computed: layer -> name of a weight that parametrizations of the model's own compute.
    """
    marks = [(node, *mark_of(mark_label(node))) for node in module.graph.nodes if is_mark(node)]
    of_others = {node: computed[layer] for node, kind, layer in marks if kind == WEIGHT and layer in computed}
    others = find_computed(module.graph, names, of_others)
    never = nonnegative_nodes(module.graph)
    signed = {layer for node, kind, layer in marks if kind == CANDIDATE and node not in never}
    inputs = {layer for node, kind, layer in marks if kind == CANDIDATE and feeds_matrix_operator(node)}
    for node, kind, layer in marks:
        # a parameter's quantizer is found by the parameter's name
        at_parameter = kind == WEIGHT and node not in of_others and marked_value(node).op == "get_attr"
        if at_parameter or (kind == CANDIDATE and layer not in inputs):
            drop_mark(node)
    own = [node for node in module.graph.nodes if node.op == "get_attr" and str(node.target) in names]
    static = _static(module.graph)
    weights = {names[str(node.target)] for node in own if feeds_matrix_operator(node) and not _makes_a_weight(node, static)}
    axes: dict[str, set[int | None]] = {}
    for node in own:
        axes.setdefault(names[str(node.target)], set()).update(_channel_axes(node))
    axes |= {name: set().union(*map(_channel_axes, nodes)) for name, nodes in others.asked.items()}
    found = {name: None if None in several else min(at for at in several if at is not None) for name, several in axes.items() if several}
    return Asked(frozenset(weights), frozenset(inputs), frozenset(inputs - signed), found, frozenset(others.asked), others.apart)


def _static(graph: fx.Graph) -> set[fx.Node]:
    """Return what is made of parameters, buffers and constants alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr" or (node.op == "call_function" and inputs and all(item in found for item in inputs)):
            found.add(node)
    return found


def _makes_a_weight(node: fx.Node, static: set[fx.Node]) -> bool:
    """Whether a weight is computed from this matrix, which itself meets no data: ``spectral_norm`` multiplies it for its length."""
    users = readers(node)
    meets_data = any(operator_name(user) in COMPUTE and user not in static for user in users)
    return not meets_data and any(is_pointwise(user) and user in static for user in users)


def _channel_axes(node: fx.Node) -> set[int | None]:
    """Return the axes of a matrix along which the operators that read it have their output channels; None: one reads single rows."""
    found: set[int | None] = set()
    for user in node.users:
        name, args = operator_name(user), user.args
        if name in ("linear", *_CONVOLUTIONS) and args[1] is node:
            found.add(0)
        elif name in _TURNED and args[1] is node:
            groups = args[6] if len(args) > 6 else user.kwargs.get("groups", 1)
            found.add(1 if groups == 1 else None)
        elif name in ("embedding", "embedding_bag"):
            found.add(None)
        elif len(shape_of(node) or ()) == 2 and name in _PRODUCTS:
            left, right = args[-2:]
            found |= ({1} if right is node else set()) | ({0} if left is node else set())
        elif len(shape_of(node) or ()) == 2 and name in ("t", "transpose", "permute") and shape_of(user) == (shape_of(node) or ())[::-1]:
            found |= {at if at is None else 1 - at for at in _channel_axes(user)}
    return found
