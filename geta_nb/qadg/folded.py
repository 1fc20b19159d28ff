"""The quantization-aware dependency graph: the trace with every quantizer branch folded into the operator that it serves.

Comes in: a trace with branches, and which of them are ours. Goes out: vertices that carry their quantizers, edges, and the branches with
their raw nodes.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import cached_property

from torch import fx

from geta_nb.graph import Trace, module_path, operator_name, shape_of
from geta_nb.qadg.branches import Branch, is_small, size_of
from geta_nb.views import Shown


@dataclass(frozen=True)
class Vertex(Shown):
    """An operator of the folded graph.

    Attributes:
        name: name of its node in the trace.
        operator: short ATen name.
        module_path: path of the module whose forward ran it.
        shape: output shape.
        weight_quantizer: layer of the weight quantizer folded into it, or None.
        input_quantizer: layer of the input quantizer folded into it, or None.
        family: family of groups that its weight produces, or None.
    """

    name: str
    operator: str
    module_path: str
    shape: tuple[int, ...]
    weight_quantizer: str | None = None
    input_quantizer: str | None = None
    family: str | None = None


@dataclass(repr=False)
class QADG(Shown):
    """Raw trace, branches and folded graph side by side (Figure 2 of the paper, for any model).

    Attributes:
        trace: the raw trace.
        branches: every quantizer branch, by structure.
        layers: branch -> layer of the quantizer, for quantizers that are ours.
        families: get_attr node name -> family that this parameter produces.
    """

    trace: Trace
    branches: tuple[Branch, ...]
    layers: dict[str, str] = field(default_factory=dict)
    families: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _nodes(self) -> dict[str, fx.Node]:
        return {node.name: node for node in self.trace.module.graph.nodes}

    @cached_property
    def vertices(self) -> tuple[Vertex, ...]:
        """Operators, inputs and the output, in order of execution."""
        return tuple(self._vertex(node) for node in self.trace.module.graph.nodes if self._is_vertex(node))

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs of vertex names along which activations flow."""
        found: dict[tuple[str, str], None] = {}
        for node in self.trace.module.graph.nodes:
            if self._is_vertex(node):
                for source in node.all_input_nodes:
                    for origin in self._origins(source):
                        found[(origin, node.name)] = None
        return tuple(found)

    def summary(self) -> tuple[object, ...]:
        """Return what the folded graph is apart from the names of its nodes: two traces of one network give the same."""
        place = {vertex.name: position for position, vertex in enumerate(self.vertices)}
        kinds = [(v.operator, v.module_path, v.shape, v.weight_quantizer, v.input_quantizer) for v in self.vertices]
        return tuple(kinds), tuple(sorted((place[start], place[end]) for start, end in self.edges))

    @cached_property
    def _inside(self) -> set[str]:
        """Names of folded nodes, and of the arithmetic on numbers that serves them alone (a scaled step size), one or one a channel."""
        inside, entries = {name for branch in self.branches for name in branch.nodes}, {branch.entry for branch in self.branches}
        for node in reversed(self.trace.module.graph.nodes):
            number = node.op == "call_function" and (size_of(node) == 1 or (is_small(node) and node in self._static))
            if number and node.users and node.name not in entries and all(user.name in inside for user in node.users):
                inside.add(node.name)
        return inside

    @cached_property
    def _exits(self) -> dict[str, Branch]:
        return {branch.exit: branch for branch in self.branches}

    @cached_property
    def _static(self) -> set[fx.Node]:
        """Nodes made of parameters and constants alone."""
        found: set[fx.Node] = set()
        for node in self.trace.module.graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "get_attr" or (node.op == "call_function" and inputs and all(item in found for item in inputs)):
                found.add(node)
        return found

    def _is_vertex(self, node: fx.Node) -> bool:
        if node.op in {"placeholder", "output"}:
            return node.op == "output" or shape_of(node) is not None
        is_size = shape_of(node) is None and not isinstance(node.meta.get("val"), (list, tuple))
        return node.op == "call_function" and node.target is not operator.getitem and not is_size and node.name not in self._inside

    def _origins(self, node: fx.Node) -> list[str]:
        """Vertices whose value this is, looked for through branches and tuple items."""
        if node.name in self._exits:
            return self._origins(self._nodes[self._exits[node.name].entry])
        if node.target is operator.getitem:
            return [name for source in node.all_input_nodes for name in self._origins(source)]
        return [node.name] if self._is_vertex(node) else []

    def _vertex(self, node: fx.Node) -> Vertex:
        weight = activation = family = None
        for source in map(self._operand, node.all_input_nodes):
            branch = self._exits.get(source.name)
            if branch is None:
                family = family or self.families.get(source.name)
                continue
            layer = self.layers.get(branch.exit, branch.name)
            if branch.kind == "attached":
                weight = weight or layer
                family = family or self.families.get(branch.entry)
            else:
                activation = activation or layer
        return Vertex(node.name, operator_name(node), module_path(node), shape_of(node) or (), weight, activation, family)

    def _operand(self, node: fx.Node) -> fx.Node:
        """Look through layout operators that only a parameter goes through (a transposed weight)."""
        while node.op == "call_function" and node.name not in self._exits and node in self._static and len(node.all_input_nodes) == 1:
            node = node.all_input_nodes[0]
        return node
