"""Operator rules, each alone. Oracles: torch itself, run on tensors of label ids, and torch itself, run on zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from geta_nb.graph.nodes import shape_of
from geta_nb.graph.trace import Trace, trace_model
from geta_nb.groups.labels import FREE, Labels
from geta_nb.groups.operators.pointwise import OTHER, UNDEFINED, ZERO, zero_table
from geta_nb.groups.operators.registry import RULES
from geta_nb.groups.propagation import Propagation, propagate, understood
from tests.zoo.odd_nets import Net

SHAPE = (4, 6)


def traced(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Trace:
    """Trace a function of parameters w0, w1, ... that ends in a sum with the input, so that something depends on data."""
    parts = {f"w{i}": nn.Parameter(torch.rand(shape)) for i, shape in enumerate(shapes)}
    net = Net(lambda s, x: (function(*(getattr(s, name) for name in parts)), x), parts)
    return trace_model(net, (torch.rand(2),), understood=understood)


def labelled(trace: Trace) -> Propagation:
    parameters = {str(node.target): str(node.target) for node in trace.module.graph.nodes if str(node.target).startswith("w")}
    return propagate(trace.module, parameters, set(), {})


def result_node(trace: Trace) -> fx.Node:
    output = next(node for node in trace.module.graph.nodes if node.op == "output")
    return output.args[0][0]  # type: ignore[index, return-value]


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "transpose": lambda w: w.transpose(0, 1),
    "t": lambda w: w.t(),
    "permute": lambda w: w.unsqueeze(1).permute(2, 0, 1),
    "view_split": lambda w: w.view(4, 2, 3),
    "view_split_both": lambda w: w.view(2, 2, 3, 2),
    "unsqueeze": lambda w: w.unsqueeze(-1),
    "squeeze": lambda w: w.unsqueeze(0).squeeze(),
    "slice": lambda w: w[1:3],
    "slice_negative": lambda w: w[:, -4:-1],
    "slice_stride": lambda w: w[:, 1::2],
    "slice_huge": lambda w: w[:, -100 : 2**40],
    "narrow": lambda w: w.narrow(1, 2, 3),
    "split": lambda w: w.split([1, 2, 3], 1)[2],
    "picked_run": lambda w: w[:, torch.tensor([-4, -3])],
    "written": lambda w: torch.slice_scatter(w, w[:, 3:], 1, 0, 3),
    "joined_with_nothing": lambda w: torch.cat([w[:, :0], w], 1),
    "chunk": lambda w: w.chunk(2, 0)[1],
    "cat_self": lambda w: torch.cat([w, w], 1),
    "cat_slices": lambda w: torch.cat([w[:, 3:], w[:, :3]], -1),
    "stack": lambda w: torch.stack([w, w], 1),
    "repeat": lambda w: w.repeat(2, 1),
    "repeat_more_axes": lambda w: w.repeat(3, 1, 2),
    "repeat_interleave": lambda w: w.repeat_interleave(3, 1),
    "clone": lambda w: w.clone(),
    "negative": lambda w: -w,
    "glu_value": lambda w: F.glu(w, 1),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_rule_moves_labels_as_the_operator_moves_values(name: str) -> None:
    trace = traced(MOVES[name], SHAPE)
    state = labelled(trace)
    own = state.tensors["w0"]
    found = state.values[result_node(trace)]
    assert isinstance(found, Labels)
    moved = []  # the label ids of each axis, moved by torch; GLU moves its first half
    for array in own.arrays:
        ids = torch.from_numpy(np.broadcast_to(array.labels, SHAPE).copy())
        moved.append((ids[:, :3] if name == "glu_value" else ids.neg() if name == "negative" else MOVES[name](ids)).abs().numpy())
    expected = [m for m in moved if len(np.unique(m)) > 1]
    got = [np.broadcast_to(array.labels, found.shape) for array in found.arrays if array.origin != FREE]  # a new axis's are nobody's
    assert len(got) == len(expected) == 2
    assert all(any(np.array_equal(a, b) for b in expected) for a in got)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["flip_axes", "halve", "double", "split", "pad"]), min_size=1, max_size=4))
def test_chains_of_moves_move_labels_as_torch_moves_values(steps: list[str]) -> None:
    def run(w: Tensor) -> Tensor:
        for step in steps:
            if step == "flip_axes":
                w = w.permute(*range(w.ndim)[::-1])
            elif step == "halve":
                w = w.narrow(-1, 0, max(w.shape[-1] // 2, 2)) if w.shape[-1] > 1 else w
            elif step == "double":
                w = torch.cat([w, w], 0)
            elif step == "split" and w.shape[-1] % 2 == 0 and w.shape[-1] > 2:
                w = w.unflatten(-1, (2, w.shape[-1] // 2))
            elif step == "pad" and w.ndim == 1:  # a padded joint axis is united along the others, which is another test
                w = F.pad(w, (1, 0))
        return w

    trace = traced(run, (8,))
    state = labelled(trace)
    if result_node(trace).op == "get_attr":
        return
    array = state.values[result_node(trace)].arrays[0]
    ids = np.broadcast_to(array.labels, state.values[result_node(trace)].shape)
    # 0 is what torch pads with; labels of nobody are those that w does not have
    expected = run(torch.arange(1, 9)).numpy()
    assert np.array_equal(np.where(ids < 8, ids + 1, 0), expected)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.relu, ZERO), (F.gelu, ZERO), (F.silu, ZERO), (torch.tanh, ZERO), (torch.sin, ZERO), (torch.abs, ZERO),
        (torch.sqrt, ZERO), (lambda w: w * 3, ZERO), (lambda w: w / 3, ZERO), (lambda w: w.clamp(-1, 1), ZERO), (lambda w: w**2, ZERO),
        (F.hardswish, ZERO), (lambda w: torch.zeros_like(w), ZERO), (lambda w: w.masked_fill(w > 0, 0.0), ZERO), (F.softsign, ZERO),
        (torch.sigmoid, OTHER), (torch.exp, OTHER), (torch.cos, OTHER), (F.softplus, OTHER), (lambda w: w + 1, OTHER),
        (F.hardsigmoid, OTHER), (lambda w: w.clamp(0.1, 1), OTHER), (lambda w: torch.ones_like(w), OTHER),
        (lambda w: w == 0, OTHER), (lambda w: 1 - w, OTHER),
        (lambda w: w**0, OTHER),
        (torch.log, UNDEFINED), (torch.reciprocal, UNDEFINED), (torch.rsqrt, UNDEFINED), (lambda w: w**-0.5, UNDEFINED),
    ],
)  # fmt: skip
def test_whether_zero_stays_zero_is_measured(function: Callable[[Tensor], Tensor], expected: int) -> None:
    assert zero_table(result_node(traced(function, SHAPE)))[1] == expected


@pytest.mark.parametrize(
    ("function", "table"),
    [
        (lambda a, b: a * b, [OTHER, ZERO, ZERO, ZERO]),
        (lambda a, b: a + b, [OTHER, OTHER, OTHER, ZERO]),
        (lambda a, b: a - b, [OTHER, OTHER, OTHER, ZERO]),
        (lambda a, b: a / b, [OTHER, ZERO, UNDEFINED, UNDEFINED]),
        (torch.maximum, [OTHER, OTHER, OTHER, ZERO]),
        (lambda a, b: a == b, [OTHER, OTHER, OTHER, OTHER]),
        (lambda a, b: a != b, [OTHER, OTHER, OTHER, ZERO]),
        (torch.atan2, [OTHER, OTHER, OTHER, ZERO]),
    ],
)
def test_a_table_says_which_zeros_make_zero(function: Callable[[Tensor, Tensor], Tensor], table: list[int]) -> None:
    assert zero_table(result_node(traced(function, SHAPE, SHAPE))) == table


def test_expanding_gives_labels_that_belong_to_nobody() -> None:
    trace = traced(lambda w: w.unsqueeze(0).expand(3, -1, -1), SHAPE)
    state = labelled(trace)
    arrays = {array.cover: array for array in state.values[result_node(trace)].arrays}
    assert arrays.keys() == {(0,), (1,), (2,)}
    assert arrays[(0,)].origin == FREE
    own = {int(label) for array in state.tensors["w0"].arrays for label in array.labels.ravel()}
    assert not own & set(arrays[(0,)].labels.ravel().tolist())


@pytest.mark.parametrize(
    "function",
    [lambda w: w.softmax(1), lambda w: w.mean(1), lambda w: w.cumsum(1), lambda w: w.flip(1), lambda w: w.roll(2, 1),
     lambda w: w[:, 2], lambda w: w.amax(-1, keepdim=True), lambda w: w.sort(1).values, lambda w: F.layer_norm(w, (6,)),
     lambda w: F.pad(w, (0, -2)),
     lambda w: w.unbind(1)[0], lambda w: w.std(1), lambda w: w[:, torch.tensor([2, 1])], lambda w: w / w.norm(float("-inf"), 1, True)],
)  # fmt: skip
def test_an_axis_that_is_averaged_ordered_or_numbered_is_fixed_and_the_other_is_not(function: Callable[[Tensor], Tensor]) -> None:
    trace = traced(function, SHAPE)
    state = labelled(trace)
    first, second = state.tensors["w0"].arrays
    inside = [labels for labels, reason in state.space.fixed if state.space.reasons[reason].operator != "output"]
    own = {*first.labels.ravel().tolist(), *second.labels.ravel().tolist()}  # an expanded axis has labels that belong to nobody
    fixed_inside = {int(label) for labels in inside for label in labels} & own
    assert fixed_inside == set(second.labels.ravel().tolist())
    assert state.values[result_node(trace)].arrays[0].labels.ravel().tolist() == first.labels.ravel().tolist()


def test_reasons_name_the_operator_and_the_module() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(1)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.inner = nn.Parameter(torch.rand(4, 6)), Inner()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.inner(self.w), x

    trace = trace_model(Outer(), (torch.rand(2),))
    state = labelled(trace)
    assert any((r.text, r.operator, r.module_path) == ("indices reordered by position", "flip", "inner") for r in state.space.reasons)


@torch.library.custom_op("geta_nb_tests::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    return x * 2


double.register_fake(torch.empty_like)


def test_an_operator_nobody_knows_fixes_what_it_touches_and_is_written_down() -> None:
    trace = traced(lambda w: double(w), SHAPE)
    state = labelled(trace)
    assert state.findings.unknown == [("geta_nb_tests::double", "")]
    assert {int(label) for labels, _ in state.space.fixed for label in labels} == set(range(10))


def test_a_rule_that_fails_or_gives_a_wrong_shape_protects(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in (lambda call: 1 / 0, lambda call: Labels((1, 2, 3)), lambda call: call.args[7]):
        monkeypatch.setitem(RULES, "transpose", broken)
        state = labelled(traced(lambda w: w.transpose(0, 1), SHAPE))
        assert state.findings.unknown == [("transpose", "")]


def test_what_has_no_rule_is_decomposed_when_torch_knows_how() -> None:
    trace = traced(lambda w: F.channel_shuffle(w.view(1, 4, 6), 2), SHAPE)
    assert "channel_shuffle" not in {node.operator for node in trace.nodes}
    assert not labelled(trace).findings.unknown


def test_macs_are_those_of_the_formula() -> None:
    net = Net(lambda s, x: s.c(s.a(x)).flatten(1), {"a": nn.Conv2d(3, 4, 3), "c": nn.Conv2d(4, 8, 3, groups=2, padding=1)})
    trace = trace_model(net, (torch.rand(2, 3, 8, 8),))
    counts = [macs.const * int(np.prod([array.size for array in macs.arrays])) for macs in labelled(trace).findings.macs]
    # 2 images; 6 * 6 positions * 9 taps: * 3 * 4 channels; * (4 / 2) * 8 channels
    assert counts == [2 * 36 * 9 * 3 * 4, 2 * 36 * 9 * 2 * 8]


def test_shapes_of_labels_are_those_of_the_trace() -> None:
    net = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True).eval()
    trace = trace_model(net, (torch.rand(2, 5, 16),), understood=understood)
    state = labelled(trace)
    checked = 0
    for node, value in state.values.items():
        if isinstance(value, Labels):
            assert value.shape == shape_of(node), node
            checked += 1
    assert checked > 30
