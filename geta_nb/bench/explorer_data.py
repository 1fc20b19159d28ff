"""Made-up networks of any size for the explorer's benchmark: the data of ``widgets.graph_data`` without a network to trace.

In: how many modules, layers and vertices. Out: page data. Structure, names and facts are those of a transformer's trace.
"""

from __future__ import annotations

from typing import Any

_STEPS = ("linear", "view", "transpose", "linear", "matmul", "softmax", "linear", "add", "layer_norm", "linear", "gelu", "linear", "add")
_WEIGHTS = frozenset(("linear",))
_BRANCH = (*["parameter"] * 4, "abs", "minimum", "pow", "sign", "div", "round", "mul", "mul")
"""What a weight quantizer is made of in the raw trace."""


def nested(blocks: int, layers: int, depth: int) -> dict[str, Any]:
    """Return a network of ``blocks`` x ``layers`` x ``depth`` vertices in three levels of modules."""
    paths, rows, edges = [""], [("input", 0)], []
    for b in range(blocks):
        paths.append(f"block{b}")
        for i in range(layers):
            paths.append(f"block{b}.layer{i}")
            owner, first = len(paths) - 1, len(rows)
            for k in range(depth):
                edges.append((len(rows) - 1, len(rows)))
                if k == 7:
                    edges.append((first - 1, len(rows)))
                rows.append((_STEPS[k % len(_STEPS)], owner))
    return page(paths, rows, edges)


def flat(children: int) -> dict[str, Any]:
    """Return a chain of ``children`` vertices in one module, with a shortcut every ten."""
    rows = [("linear" if i % 2 else "relu", 0) for i in range(children)]
    edges = [(i, i + 1) for i in range(children - 1)] + [(i, i + 5) for i in range(0, children - 5, 10)]
    return page([""], rows, edges)


def page(paths: list[str], rows: list[tuple[str, int]], edges: list[tuple[int, int]]) -> dict[str, Any]:
    """Return page data of vertices given as (operator, module) and edges between their positions; each weight has its branch."""
    made = [i for i, (operator, _) in enumerate(rows) if operator in _WEIGHTS]
    branch, vertex, raw_edges = [-1] * len(rows), list(range(len(rows))), list(edges)
    inside = list(rows)
    for n, i in enumerate(made):
        start = len(inside)
        inside += [(operator, rows[i][1]) for operator in _BRANCH]
        branch += [n] * len(_BRANCH)
        vertex += [i] * len(_BRANCH)
        raw_edges += [(start + k, start + k + 1) for k in range(len(_BRANCH) - 1)] + [(len(inside) - 1, i)]
    texts = [*sorted({operator for operator, _ in inside}), "8 × 128 × 768"]
    position = {text: i for i, text in enumerate(texts)}
    costs = [75_497_472, 7.7e10, 2_359_296, 589_824]
    facts = {str(i): {"w": n, "t": [n], "p": [n // 2], "c": [n // 2], "k": costs} for n, i in enumerate(made)}
    families = [
        {"name": f"family {n}", "path": "", "groups": 12, "elements": 9216, "exact": True, "slices": [["w", 0, 64, True, "0–63"]]}
        for n in range(len(made) // 2 + 1)
    ]
    whole = {"nodes": list(range(len(inside))), "edges": [end for edge in raw_edges for end in edge]}
    graph = {
        "format": 1, "title": "made up", "texts": texts, "kinds": {0: "multiplies", 4: "quantizer, bits", 7: "other"},
        "kindOfText": [0 if text in _WEIGHTS else 7 for text in texts],
        "nodes": {
            "name": [f"{operator}_{i}" for i, (operator, _) in enumerate(inside)], "op": [position[operator] for operator, _ in inside],
            "shape": [len(texts) - 1] * len(inside), "module": [module for _, module in inside], "branch": branch, "vertex": vertex,
        },
        "modules": {"path": paths, "type": ["Block" if path else "Net" for path in paths]},
        "branches": [[f"w{n}", "attached", f"layer {n}"] for n in range(len(made))],
        "layers": {
            "raw": whole, "branches": whole,
            "QADG": {"nodes": list(range(len(rows))), "edges": [end for edge in edges for end in edge]},
        },
        "vertices": facts, "tensors": [[f"w{n}", [768, 768], []] for n in range(len(made))], "families": families, "reasons": [],
        "quantizers": {"weight": [f"layer {n}" for n in range(len(made))], "input": []},
    }  # fmt: skip
    many = len(families)
    return {
        "graph": graph, "layer": "QADG", "colour": "operator",
        "live_state": {"weight": [2 + n % 15 for n in range(len(made))], "input": [], "kept": [1.0] * many},
        "budget_state": {"protect": [False] * many, "sparsity": [None] * many, "bits": [[4, 16]] * len(made), "line": "gt.Budget()"},
    }  # fmt: skip
