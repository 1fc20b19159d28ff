"""What a plain graph asks to be quantized: the matrices and inputs that a matrix operator reads. Between the trace and the quantizers.

In: a trace with marks before the inputs that could be quantized. Out: the sites, and a graph in which only marks that will be replaced
are left: those of sites, and of quantizers that are there already.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from geta_nb.graph import drop_mark, is_mark, mark_label, marked_value, nonnegative_nodes, operator_name
from geta_nb.qadg.branches import COMPUTE, readers
from geta_nb.quantizers import CANDIDATE, WEIGHT, Asked, mark_of


def find_sites(module: fx.GraphModule, names: Mapping[str, str]) -> Asked:
    """Return what the graph asks for, and take the marks of everything else out of it.

    Args:
        module: plain trace with marks.
        names: get_attr target -> own name of a parameter or buffer.
    """
    marks = [(node, *mark_of(mark_label(node))) for node in module.graph.nodes if is_mark(node)]
    never = nonnegative_nodes(module.graph)
    signed = {layer for node, kind, layer in marks if kind == CANDIDATE and node not in never}
    inputs = {layer for node, kind, layer in marks if kind == CANDIDATE and _feeds_matrix_operator(node)}
    for node, kind, layer in marks:
        at_parameter = kind == WEIGHT and marked_value(node).op == "get_attr"  # its quantizer is found by the parameter's name
        if at_parameter or (kind == CANDIDATE and layer not in inputs):
            drop_mark(node)
    weights = {
        names[str(node.target)]
        for node in module.graph.nodes
        if node.op == "get_attr" and str(node.target) in names and _feeds_matrix_operator(node)
    }
    return Asked(frozenset(weights), frozenset(inputs), frozenset(inputs - signed))


def _feeds_matrix_operator(node: fx.Node) -> bool:
    return any(operator_name(user) in COMPUTE for user in readers(node))
