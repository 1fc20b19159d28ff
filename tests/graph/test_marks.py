"""A mark is an identity that a trace shows; nothing else ever sees one."""

from __future__ import annotations

import importlib
from functools import partial

import torch
from torch import Tensor, nn

from geta_nb.graph import marks, trace_model
from geta_nb.graph.marks import drop_mark, is_mark, mark, mark_label, marked_value


class Marked(nn.Module):
    """Marks its input, laid out in an unusual order of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(mark(x.transpose(1, 2), "input:layer"))


ROWS = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))


def test_a_mark_changes_no_value_and_a_trace_shows_what_it_hands_on_and_how_that_lies_in_memory() -> None:
    model = Marked()
    trace = trace_model(model, (ROWS,))
    (node,) = (node for node in trace.module.graph.nodes if is_mark(node))
    assert mark_label(node) == "input:layer" and marked_value(node).name == "transpose"
    assert node.meta["val"].stride() == marked_value(node).meta["val"].stride()
    assert torch.equal(trace.module(ROWS), model(ROWS)) and torch.equal(mark(ROWS, "x"), ROWS)


def test_a_mark_that_is_dropped_leaves_the_graph_as_it_is_without_one() -> None:
    trace = trace_model(Marked(), (ROWS,))
    for node in [node for node in trace.module.graph.nodes if is_mark(node)]:
        drop_mark(node)
    trace.module.recompile()
    assert [node.operator for node in trace.nodes] == ["placeholder", "transpose", "linear"]
    assert torch.equal(trace.module(ROWS), nn.functional.linear(ROWS.transpose(1, 2), *dict(trace.module.named_parameters()).values()))


def test_marks_are_known_again_when_their_module_is_loaded_twice() -> None:
    again = importlib.reload(marks)
    function = partial(again.mark, label="twice")

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x) + 1

    graph = trace_model(Twice(), (ROWS,)).module.graph
    assert [mark_label(node) for node in graph.nodes if is_mark(node) and again.is_mark(node)] == ["twice"]
