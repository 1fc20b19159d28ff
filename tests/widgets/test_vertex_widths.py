"""Channels of every vertex, before and after: against the tensors that a masked network, a subnet and a preview really have."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import InputError
from geta_nb.widgets.vertex_widths import Widths, compare_state, live_state_of, of_subnet, under_budget
from tests.small_nets import IMAGES, ROWS, Literal, Residual, cnn


def masked(geta: gt.GETA, family: int = 0, many: int = 3) -> gt.GETA:
    geta.mask([group.index for group in list(geta.families[family].groups)[:many]])
    return geta


def by_layer(geta: gt.GETA, column: list[int]) -> dict[str, int]:
    """Module path -> channels of the vertex that multiplies there."""
    names = dict(zip(Widths(geta).names, column, strict=True))
    return {v.module_path: names[v.name] for v in geta.qadg.vertices if v.weight_quantizer and v.name in names}


@pytest.mark.parametrize(("model", "inputs", "kind"), [(cnn, IMAGES, "native"), (Residual, IMAGES, "native"), (Literal, ROWS, "graph")])
def test_a_subnets_widths_are_those_of_its_weights_whatever_its_kind(model: Any, inputs: torch.Tensor, kind: str) -> None:
    geta = masked(gt.GETA(model(), inputs))
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == kind
    state = compare_state(geta, Widths(geta), subnet=of_subnet(geta, subnet))
    rows = {row.module_path: row.channels_after for row in geta.report(subnet).layers if row.channels_after is not None}
    assert by_layer(geta, state["subnet"]) == rows
    if kind == "native":
        weights = {name.rpartition(".")[0]: len(p) for name, p in subnet.named_parameters() if name.endswith("weight")}
        assert {layer: weights[layer] for layer in rows} == rows
    assert by_layer(geta, state["dense"]) == {row.module_path: row.channels for row in geta.cost.dense.layers if row.channels is not None}


def test_what_is_masked_now_is_counted_at_every_vertex_it_runs_through() -> None:
    geta = masked(gt.GETA(cnn(), IMAGES))
    widths = Widths(geta)
    state = compare_state(geta, widths)
    at = {name: (dense, now) for name, dense, now in zip(widths.names, state["dense"], state["now"], strict=True)}
    for name in ("conv2d", "_native_batch_norm_legit_no_training_default", "relu"):
        assert at[name] == (8, 5)
    assert at["conv2d_1"] == (8, 8) and at["linear"] == (3, 3)


def test_the_budgets_widths_and_bits_are_those_of_its_preview() -> None:
    geta = gt.GETA(cnn(16), IMAGES)
    budget = gt.Budget(relative_bops=0.03, exceptions={"0": gt.LayerBudget(max_sparsity=0.25)})
    state, preview = compare_state(geta, Widths(geta), budget=budget), geta.preview(budget)
    assert by_layer(geta, state["budget"]) == {row.module_path: row.channels for row in preview.layers if row.channels is not None}
    assert state["bits"]["budget"] == [preview.bit_widths[layer] for layer in geta.bit_widths()]
    assert any(after < before for before, after in zip(state["dense"], state["budget"], strict=True))


def test_a_budget_that_cannot_be_met_is_not_drawn_and_says_so() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    state = compare_state(geta, Widths(geta), budget=gt.Budget(relative_bops=1e-9))
    assert "budget" not in state and "relative_bops" in state["refused"]


class Heads(nn.Module):
    """Four heads of six rows, on an axis of their own between projection and output."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(24, 24) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = lambda y: y.view(x.shape[0], x.shape[1], 4, -1).transpose(1, 2)  # noqa: E731
        y = nn.functional.scaled_dot_product_attention(split(self.q(x)), split(self.k(x)), split(self.v(x)))
        return self.out(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


def test_a_head_counts_with_all_its_rows_on_every_vertex() -> None:
    geta = gt.GETA(Heads(), torch.randn(2, 5, 24))
    widths = Widths(geta)
    masked(geta, many=1)
    state = compare_state(geta, widths)
    pairs = set(zip(state["dense"], state["now"], strict=True))
    assert pairs == {(24, 18), (24, 24)}, dict(zip(widths.names, zip(state["dense"], state["now"], strict=True), strict=True))
    assert {"scaled_dot_product_attention", "transpose_3"} <= {
        name for name, now in zip(widths.names, state["now"], strict=True) if now == 18
    }


def test_a_side_of_a_map_is_not_taken_for_rows_of_a_head() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    geta = masked(gt.GETA(net, torch.randn(2, 3, 8, 8)))
    widths = Widths(geta)
    assert dict(zip(widths.names, widths.dense, strict=True)) == {"conv2d": 8, "relu": 8, "conv2d_1": 2}


def test_the_subnets_live_state_has_its_bits_and_shares() -> None:
    geta = masked(gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True)), many=2)
    geta.calibrate([IMAGES])
    state = live_state_of(geta, of_subnet(geta, geta.construct_subnet()))
    assert state == {"weight": [16.0] * 3, "input": [16.0] * len(geta.activation_bit_widths()), "kept": [0.75, 1.0]}


def test_a_stranger_is_no_subnet() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    with pytest.raises(InputError, match="not a subnet of this GETA"):
        of_subnet(geta, cnn())
    with pytest.raises(InputError, match="not a subnet of this GETA"):
        of_subnet(geta, masked(gt.GETA(Residual(), IMAGES)).construct_subnet())


def test_a_plan_keeps_a_channel_of_every_family() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    plan = under_budget(geta, gt.Budget(0.85))
    assert all(share > 0 for share in live_state_of(geta, plan)["kept"])


def test_a_network_without_values_has_its_dense_widths() -> None:
    with torch.device("meta"):
        geta = gt.GETA(cnn(), torch.empty(2, 3, 6, 6))
    state = compare_state(geta, Widths(geta))
    assert state["now"] == state["dense"] and not re.search("budget|subnet", str(sorted(state)))
