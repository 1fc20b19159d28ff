"""Everything the explorer shows of a network, as plain JSON-able data: sent to the page once.

In: a ``GETA``. Out: :func:`graph_data` (graph, families, tensors, costs, reasons; by columns, names as positions) and the small messages
:func:`live_state` and :func:`budget_state` that follow it. Pure; no widget. Every text is cleaned here and stays text in the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import fx

from geta_nb.budget import Budget
from geta_nb.display.qadg import KIND_WORDS, operator_kind
from geta_nb.display.wording import clean
from geta_nb.errors import InputError
from geta_nb.geta import GETA
from geta_nb.groups import Labels, masking
from geta_nb.quantizers import parameter_tensors, tensors_of_groups
from geta_nb.widgets.budget_code import budget_code
from geta_nb.widgets.graph_layers import LAYERS, Layers, find_layers, find_trees, module_types, node_shape, operator_words
from geta_nb.widgets.structure import Item, groups_of

FORMAT = 1


class _Interned:
    """Texts by position; each is kept once."""

    def __init__(self) -> None:
        self.position: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.position.setdefault(text, len(self.position))

    @property
    def texts(self) -> list[str]:
        return list(self.position)


def graph_data(geta: GETA) -> dict[str, Any]:
    """Return the graph of a network with all that is known of each vertex.

    Keys: ``title``; ``texts`` (every operator and shape once); ``nodes`` (columns ``name``, ``op``, ``shape``, ``module``, ``branch``,
    ``vertex``: the QADG vertex a node is or serves, ``quiet``: carries nothing); ``modules`` (columns ``path``, ``type``, ``called``: runs
    as a module); ``branches``; ``layers`` (members, flat pairs of edges and groups of each picture: stacks of equal blocks, plain steps);
    ``vertices`` (facts by node); ``tensors``; ``families``; ``reasons``; ``quantizers``; ``kinds`` and ``kindOfText`` (hue of each kind of
    operator, and of each text that names one).
    """
    layers = find_layers(geta.qadg)
    intern = _Interned()
    names = geta._analysis.names
    columns: dict[str, list[Any]] = {
        "name": [_node_name(node, names) for node in layers.nodes],
        "op": [intern(operator_words(node)) for node in layers.nodes],
        "shape": [intern(node_shape(node)) for node in layers.nodes],
        "module": layers.module,
        "branch": layers.branch,
        "vertex": layers.serves,
    }
    facts = _facts(geta, layers)
    quiet, trees = find_trees(layers, facts["vertices"])
    columns["quiet"] = [int(i in quiet) for i in range(len(layers.nodes))]
    return {
        "format": FORMAT,
        "title": clean(type(geta.model).__name__),
        "nodes": columns,
        "modules": {
            "path": [clean(path) for path in layers.modules], "type": module_types(geta.model, layers.modules),
            "called": [int(called) for called in layers.called],
        },
        "branches": [[clean(b.name), b.kind, clean(geta.qadg.layers.get(b.exit, ""))] for b in geta.qadg.branches],
        "layers": {
            layer: {
                "nodes": layers.members[layer], "edges": [end for pair in layers.edges[layer] for end in pair],
                "groups": groups_of(trees[layer]),
            }
            for layer in LAYERS
        },
        **facts,
        "texts": intern.texts,
        "kinds": {_hue(kind): words for kind, words in KIND_WORDS.items()},
        "kindOfText": [_hue(operator_kind(text)) for text in intern.texts],
    }


def first_tree(geta: GETA) -> tuple[Layers, dict[str, Any], Item]:
    """Return the pictures, ``vertices`` and ``tensors`` as in :func:`graph_data`, and the tree of the folded graph."""
    layers = find_layers(geta.qadg)
    facts = _facts(geta, layers)
    return layers, facts, find_trees(layers, facts["vertices"], ("QADG",))[1]["QADG"]


def _hue(kind: str) -> int:
    """Position of a theme class among the hues."""
    return int(kind.removeprefix("gv-c"))


def _node_name(node: fx.Node, names: Mapping[str, str]) -> str:
    return clean(names.get(str(node.target), node.target) if node.op == "get_attr" else node.name)


def _facts(geta: GETA, layers: Layers) -> dict[str, Any]:
    weights, inputs = list(geta.bit_widths()), list(geta.activation_bit_widths())
    tensors, of_vertex = _tensors(geta, layers)
    families = _families(geta)
    carried, consumed = _carried(geta, layers), _consumed(geta, tensors)
    position = {name: i for i, name in enumerate(geta.groups.table.family_names)}
    produced = _produced(geta, tensors)
    index = {node.name: i for i, node in enumerate(layers.nodes)}
    vertices: dict[int, dict[str, Any]] = {index[v.name]: {} for v in geta.qadg.vertices}
    for vertex in geta.qadg.vertices:
        i = index[vertex.name]
        own = of_vertex.get(i, [])
        made = {f for t in own for f in produced.get(t, ())} | ({position[vertex.family]} if vertex.family in position else set())
        facts: dict[str, Any] = {
            "w": _at(weights, vertex.weight_quantizer),
            "a": _at(inputs, vertex.input_quantizer),
            "t": own,
            "p": sorted(made),
            "c": carried.get(i, []),
            "u": sorted({f for t in own for f in consumed.get(t, ())}),
        }
        vertices[i] = {key: value for key, value in facts.items() if value not in (-1, [])}
    for i, cost in _costs(geta, layers).items():
        if i in vertices:
            vertices[i]["k"] = cost
    reasons, tensor_rows = _protected(geta, tensors)
    return {
        "vertices": {str(i): facts for i, facts in vertices.items() if facts},
        "tensors": tensor_rows,
        "families": families,
        "reasons": reasons,
        "quantizers": {"weight": [clean(layer) for layer in weights], "input": [clean(layer) for layer in inputs]},
    }


def _at(names: Sequence[str], name: str | None) -> int:
    return names.index(name) if name in names else -1


def _tensors(geta: GETA, layers: Layers) -> tuple[dict[str, tuple[int, ...]], dict[int, list[int]]]:
    """Own name -> shape of every parameter, and the parameters that each vertex reads, as positions in that order."""
    shapes = {name: tuple(tensor.shape) for name, tensor in parameter_tensors(geta.model).items()}
    position = {name: i for i, name in enumerate(shapes)}
    index = {node: i for i, node in enumerate(layers.nodes)}
    of_vertex: dict[int, list[int]] = {}
    for i, node in enumerate(layers.nodes):
        name = geta._analysis.names.get(str(node.target)) if node.op == "get_attr" else None
        if name in position:
            readers = {layers.serves[i], *(layers.serves[index[user]] for user in node.users)}  # a shared one has several
            for vertex in sorted(readers - {-1}):
                of_vertex.setdefault(vertex, []).append(position[name])
    return shapes, of_vertex


def _families(geta: GETA) -> list[dict[str, Any]]:
    """Each family: name, module, numbers, and the slices of its first group with how many indices a group takes of each."""
    table = geta.groups.table
    elements = np.bincount(table.family_of, weights=table.group_size, minlength=len(table.family_names))
    rows = []
    for family, many in zip(geta.families, elements, strict=True):
        first = family.groups[0]
        producing = set(first.producers)
        rows.append(
            {
                "name": clean(family.name), "path": clean(family.module_path), "groups": len(family.groups), "elements": int(many),
                "exact": family.exact,
                "slices": [[clean(s.parameter), s.axis, len(s.indices), s in producing, _ends(s.indices)] for s in first.slices],
            }
        )  # fmt: skip
    return rows


def _ends(indices: Sequence[int]) -> str:
    first, last = min(indices), max(indices)
    runs = last - first + 1 == len(indices)
    return str(first) if first == last else f"{first}–{last}" if runs else f"{first} … {last}"


def _family_sets(geta: GETA, *, producing: bool) -> dict[str, set[int]]:
    """Families in each tensor, by the tensor's name."""
    table = geta.groups.table
    found: dict[str, set[int]] = {}
    for entry in table.axis_maps:
        if entry.producing == producing:
            members = entry.group_of_index[entry.group_of_index >= 0]
            found.setdefault(entry.parameter, set()).update(np.unique(table.family_of[members]).tolist())
    return found


def _produced(geta: GETA, tensors: Mapping[str, Any]) -> dict[int, set[int]]:
    found = _family_sets(geta, producing=True)
    return {i: found[name] for i, name in enumerate(tensors) if name in found}


def _consumed(geta: GETA, tensors: Mapping[str, Any]) -> dict[int, set[int]]:
    found = _family_sets(geta, producing=False)
    return {i: found[name] for i, name in enumerate(tensors) if name in found}


def _carried(geta: GETA, layers: Layers) -> dict[int, list[int]]:
    """Families whose channels an operator gives out, the largest first."""
    table = geta.groups.table
    owner = np.append(table.family_of, -1)
    found: dict[int, list[int]] = {}
    for i in layers.members["QADG"]:
        value = geta._analysis.state.values.get(layers.nodes[i])
        labels = next((item for item in value if isinstance(item, Labels)), None) if isinstance(value, (list, tuple)) else value
        if isinstance(labels, Labels):
            groups = [table.label_groups[array.labels].ravel() for array in labels.arrays]
            many = Counter(f for part in groups for f in owner[part].tolist() if f >= 0)
            if many:
                found[i] = [family for family, _ in many.most_common()]
    return found


def _costs(geta: GETA, layers: Layers) -> dict[int, list[float]]:
    """MACs, BOPs of the dense fp32 model and bytes of the parameters, by node; both products of an attention count for it."""
    dense = {row.layer: row for row in geta.cost.evaluate().layers}
    index = {node: i for i, node in enumerate(layers.nodes)}
    found: dict[int, list[float]] = {}
    for count, operator in zip(geta._analysis.state.findings.macs, geta.cost.operators, strict=True):
        row, i = dense[operator.layer], index.get(count.node, -1)
        before = found.get(i, [0, 0.0, 0.0, 0])
        now = (row.macs_full, row.bops_full, row.size_bytes, row.parameters)
        found[i] = [a + b for a, b in zip(before, now, strict=True)]
    return found


def _protected(geta: GETA, tensors: Mapping[str, tuple[int, ...]]) -> tuple[list[list[str]], list[list[Any]]]:
    """Reasons, and every tensor as [name, shape, reasons as pairs of (axis, position)]; reasons of modules stand for themselves."""
    position: dict[tuple[str, str], int] = {}
    axes: dict[str, list[list[int]]] = {}
    modules: dict[int, list[str]] = {}
    for entry in geta.protected:
        reason = position.setdefault((clean(entry.reason), clean(entry.operator)), len(position))
        name, _, axis = entry.path.partition("[axis ")
        if name in tensors:
            axes.setdefault(name, []).append([int(axis.rstrip("]") or 0) if axis else -1, reason])
        else:
            modules.setdefault(reason, []).append(clean(entry.path))
    reasons = [[text, operator, *modules.get(i, [])] for i, (text, operator) in enumerate(position)]
    return reasons, [[clean(name), list(shape), axes.get(name, [])] for name, shape in tensors.items()]


def live_state(geta: GETA) -> dict[str, list[float | None]]:
    """Return what training changes, in the order of ``quantizers`` and ``families``: bits of weights and inputs, kept share."""
    table = geta.groups.table
    try:
        alive = masking.alive_groups(table, tensors_of_groups(geta.model))
    except InputError:  # a model on the meta device has no values
        alive = np.ones(table.n_groups, dtype=bool)
    sizes = np.bincount(table.family_of, minlength=len(table.family_names))
    kept = np.bincount(table.family_of, weights=alive, minlength=len(table.family_names)) / np.maximum(sizes, 1)
    return {
        "weight": [_finite(bits) for bits in geta.bit_widths().values()],
        "input": [_finite(bits) for bits in geta.activation_bit_widths().values()],
        "kept": [float(share) for share in kept],
    }


def _finite(bits: float) -> float | None:
    """A quantizer without a range has no bits yet, and JSON no NaN."""
    return round(float(bits), 3) if np.isfinite(bits) else None


def budget_state(geta: GETA, budget: Budget) -> dict[str, Any]:
    """Return what a budget says of each family and quantizer, and the budget as a line of Python."""
    table = geta.groups.table
    limits: dict[int, tuple[bool, float | None]] = {}
    for entry in table.axis_maps:
        if entry.producing:
            layer = budget.layer(entry.parameter)
            for family in np.unique(table.family_of[entry.group_of_index[entry.group_of_index >= 0]]).tolist():
                protect, share = limits.get(family, (False, None))
                share = layer.max_sparsity if share is None else share if layer.max_sparsity is None else min(share, layer.max_sparsity)
                limits[family] = (protect or layer.protect, share)
    order = range(len(table.family_names))
    return {
        "protect": [limits.get(i, (False, None))[0] for i in order],
        "sparsity": [limits.get(i, (False, None))[1] for i in order],
        "bits": [list(budget.weight_bits(layer)) for layer in geta.bit_widths()],
        "line": budget_code(budget),
    }
