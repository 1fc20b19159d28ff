"""What the explorer tells of a vertex only when it is asked: its weight's histogram, its ranges, its attributes, its family's groups.

In: a ``GETA``, and what the page selected. Out: plain JSON-able values of bounded size. In a notebook they are read at the click, while a
run may train in its own thread; a page that stands alone gets the answers to all questions beforehand (:meth:`VertexDetails.page`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from geta_nb.errors import InputError
from geta_nb.geta import GETA
from geta_nb.quantizers import parameter_tensors
from geta_nb.widgets.attributes import attributes
from geta_nb.widgets.graph_layers import find_layers
from geta_nb.widgets.group_strip import Scores, find_scores, norms_and_alive, strip
from geta_nb.widgets.weight_histogram import grid, histogram

MOST_WEIGHTS = 2000
"""Weights, and families, whose figures go into a page; of more, the first."""
MOST_POSITIONS = 64
"""Groups of a family whose positions a page tells one by one: else it would be mostly that."""


class VertexDetails:
    """Answers of one network.

    Args:
        geta: the network.
        vertices: facts of each vertex as the page has them: ``graph_data(geta)["vertices"]``.
    """

    def __init__(self, geta: GETA, vertices: Mapping[Any, Mapping[str, Any]]) -> None:
        self.geta, self._vertices = geta, {int(index): facts for index, facts in vertices.items()}

    @cached_property
    def _nodes(self) -> list[Any]:
        return find_layers(self.geta.qadg).nodes

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to ``{"vertex": index or None, "family": index or None, "key": anything}``; ``key`` comes back.

        Keys, each left out where there is nothing: ``attributes``, ``weight``, ``input``, ``strip``; ``problem``: why one is missing.
        """
        found: dict[str, Any] = {"kind": "details", "key": asked.get("key")}
        vertex, family = asked.get("vertex"), asked.get("family")
        try:
            if isinstance(vertex, int) and _is_index(vertex, len(self._nodes)):
                found |= self._vertex(vertex)
            if isinstance(family, int) and _is_index(family, len(self.geta.groups.table.family_names)):
                norms, alive = norms_and_alive(self.geta, family)
                found["strip"] = strip(self.geta, family, find_scores(self.geta, norms), alive)
        except Exception as error:  # said in the page: nothing a click asks for may end the message loop, or a run
            found["problem"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return found

    def _vertex(self, index: int) -> dict[str, Any]:
        facts, told = self._vertices.get(index, {}), attributes(self._nodes[index])
        weight, given = self._weight(facts, self._tensors()), self._input(facts)
        parts = {"attributes": [list(pair) for pair in told], "weight": weight, "input": given}
        return {key: value for key, value in parts.items() if value}

    def _weight(self, facts: Mapping[str, Any], tensors: list[tuple[str, Tensor]]) -> dict[str, Any] | None:
        """The quantized weight of a vertex, or where none is, its largest parameter."""
        own = [(*tensors[i], i) for i in facts.get("t", ())]
        if not own:
            return None
        quantizers = self.geta.quantizers
        layers = quantizers.parameter_layer if quantizers is not None else {}
        name, tensor, position = max(own, key=lambda item: (item[0] in layers, item[1].numel()))
        quantizer = quantizers.weights.get(layers[name]) if quantizers is not None and name in layers else None
        found = histogram(tensor, None if quantizer is None else quantizer.clip_max)
        if found is None:
            return None
        levels = grid(quantizer) if quantizer is not None else None
        return {"tensor": position, **found, **({"grid": levels} if levels else {})}

    def _tensors(self) -> list[tuple[str, Tensor]]:
        """Names and present tensors, in the order of ``graph_data``'s; read anew each time, since ``.to()`` may make new ones."""
        return list(parameter_tensors(self.geta.model).items())

    def _input(self, facts: Mapping[str, Any]) -> dict[str, Any] | None:
        quantizers = self.geta.quantizers
        if quantizers is None or "a" not in facts:
            return None
        found = grid(list(quantizers.activations.values())[facts["a"]])
        if found is None:
            return {"missing": True}
        optimizer = self.geta._optimizer
        return {**found, "steps": 0 if optimizer is None else optimizer.steps_done}

    def page(self) -> dict[str, Any]:
        """Return all answers, for a page without a kernel: about 200 bytes a weight, 700 a family.

        Keys: ``attributes`` (each text once, and which a node has), ``vertices`` (weight and input by vertex), ``strips`` (by family).
        """
        texts: dict[str, int] = {}
        words: list[Any] = []
        of_node: dict[int, int] = {}
        for i, node in enumerate(self._nodes):
            told = attributes(node)
            if told:
                of_node[i] = texts.setdefault(repr(told), len(texts))
                if len(words) < len(texts):
                    words.append([list(pair) for pair in told])
        return {"attributes": {"texts": words, "of": of_node}, "vertices": self._all_vertices(), "strips": self._all_strips()}

    def _all_vertices(self) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        tensors = self._tensors()
        for index, facts in list(self._vertices.items()):
            if len(found) < MOST_WEIGHTS and ("t" in facts or "a" in facts):
                parts = {"weight": self._weight(facts, tensors), "input": self._input(facts)}
                found[index] = {key: value for key, value in parts.items() if value}
        return found

    def _all_strips(self) -> list[dict[str, Any]]:
        table = self.geta.groups.table
        try:
            norms, alive = norms_and_alive(self.geta)
            scores: Scores = find_scores(self.geta, norms)
        except (InputError, NotImplementedError, RuntimeError):  # no values: a model on the meta device
            return []
        sizes = np.bincount(table.family_of, minlength=len(table.family_names))
        rows = [strip(self.geta, family, scores, alive) for family in range(min(len(sizes), MOST_WEIGHTS))]
        return [{key: value for key, value in row.items() if key != "order" or row["n"] <= MOST_POSITIONS} for row in rows]


def _is_index(value: int, end: int) -> bool:
    return not isinstance(value, bool) and 0 <= value < end
