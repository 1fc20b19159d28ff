"""Views of the raw trace: how many nodes of which operator, and the list of nodes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from geta_nb.display.markup import Number, details, fragment, name, note, table
from geta_nb.display.wording import clean, count, plural, shape_text, shorten


def trace_text(trace: Any) -> str:
    """Return the number of nodes and the commonest operators."""
    operators = Counter(clean(node.operator) for node in trace.nodes)
    words = ", ".join(f"{shorten(operator, 40)} {many}" for operator, many in _sorted(operators)[:5])
    return f"Trace({plural(len(trace.nodes), 'node')}, {plural(len(operators), 'operator')}" + (f": {words}" if words else "") + ")"


def _sorted(operators: Counter[str]) -> list[tuple[str, int]]:
    return sorted(operators.items(), key=lambda item: (-item[1], item[0]))


def trace_html(trace: Any) -> str:
    """Return a table of operators and the folded list of nodes."""
    operators = Counter(clean(node.operator) for node in trace.nodes)
    counted = table(
        ("operator", "nodes"), [(name(operator), Number(count(many))) for operator, many in _sorted(operators)], label="operators"
    )
    rows = [
        (
            name(n.name),
            name(n.operator),
            shape_text(n.shape),
            clean(n.dtype),
            name(n.module_path),
            name(n.source),
        )
        for n in trace.nodes
    ]
    listed = table(("node", "operator", "shape", "type", "module", "source"), rows, label="nodes")
    batch = "The leading axis may change." if trace.dynamic_batch else "All sizes are those of the example inputs."
    return fragment(f"Trace: {plural(len(rows), 'node')}", note(batch), counted, details(f"All nodes ({count(len(rows))})", listed))


def node_text(node: Any) -> str:
    """Return one node: name, operator, shape and module."""
    where = f" in {shorten(node.module_path, 60)}" if node.module_path else ""
    return f"TraceNode({shorten(node.name, 40)} = {shorten(node.operator, 40)} [{shape_text(node.shape)}]{where})"
