"""Groups read off the labels: what is in them, how they are named, counted and built, and why the rest is protected."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.groups.table import Slice
from tests.zoo import laws
from tests.zoo.catalogue import ZOO, randomise
from tests.zoo.odd_nets import Net


def zoo(name: str) -> gt.GETA:
    model, args, kwargs = ZOO[name].double()
    return laws.geta_of(model, args, kwargs)


def plain(net: nn.Module, *shape: int) -> gt.GETA:
    return gt.GETA(net, torch.rand(2, *shape), quantize=None)


def conv_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 2))


def test_a_filter_goes_with_its_norm_and_with_the_channels_that_read_it() -> None:
    geta = plain(conv_net(), 3, 6, 6)
    group = geta.groups[1]
    assert group.producers == tuple(Slice(name, 0, (1,)) for name in ("0.weight", "0.bias", "1.weight", "1.bias"))
    assert set(group.consumers) == {Slice("3.weight", 1, (1,)), Slice("1.running_mean", 0, (1,)), Slice("1.running_var", 0, (1,))}
    # 3 * 9 weights, bias, scale and shift; 6 * 9 weights that read; statistics are no parameters
    assert group.size == 27 + 3 + 54


def test_a_filter_before_flattening_goes_with_a_block_of_columns() -> None:
    group = plain(conv_net(), 3, 6, 6).groups[4 + 2]
    assert group.consumers == (Slice("6.weight", 1, (8, 9, 10, 11)),)  # channel 2 of 2 x 2 positions
    assert group.size == 4 * 9 + 1 + 2 * 4


def test_families_are_layers_in_order_with_their_module_path() -> None:
    geta = plain(conv_net(), 3, 6, 6)
    assert [(family.name, family.module_path, len(family.groups)) for family in geta.families] == [("0", "0", 4), ("3", "3", 6)]
    assert [group.index for family in geta.families for group in family.groups] == list(range(10))
    assert {group.family for group in geta.families[1].groups} == {"3"}
    assert [group.index for group in geta.families[1].groups[:2]] == [4, 5]


def test_residual_adds_put_all_that_write_to_the_stream_in_one_family() -> None:
    geta = zoo("resnet_basic")
    producers = {part.parameter for part in geta.groups[0].producers}
    assert len([name for name in producers if name.endswith("weight") and geta.model.get_parameter(name).ndim == 4]) >= 2


def test_parts_of_an_uneven_split_are_families_of_their_own() -> None:
    net = Net(lambda s, x: s.b(s.a(x)[:, :3]) + s.c(s.a(x)[:, 3:]), {"a": nn.Linear(8, 16), "b": nn.Linear(3, 2), "c": nn.Linear(13, 2)})
    families = plain(net, 8).families
    assert {family.name for family in families} == {"a[0]", "a[1]"}
    assert sorted(len(family.groups) for family in families) == [3, 13]  # so that each part keeps a channel


def test_a_removed_corner_is_counted_once() -> None:
    parts = {"a": nn.Linear(4, 6), "w": nn.Parameter(torch.rand(6, 6)), "b": nn.Linear(6, 2)}
    net = Net(lambda s, x: s.b(F.linear(F.relu(F.linear(s.a(x), s.w)), s.w)), parts)
    group = plain(net, 4).groups[0]
    # a row of a and its bias, a row and a column of w that share one element, two weights of b
    assert group.size == 4 + 1 + (6 + 6 - 1) + 2


def test_groups_are_built_when_asked_for() -> None:
    groups = plain(conv_net(), 3, 6, 6).groups
    assert len(groups) == 10
    assert "_members" not in vars(groups)
    assert groups[-1].index == 9
    assert [group.index for group in groups[2:5]] == [2, 3, 4]
    assert [group.index for group in groups] == list(range(10))
    with pytest.raises(IndexError):
        groups[10]


def test_protected_axes_say_parameter_reason_operator_and_module() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(-1, keepdim=True)

    net = nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), Mean()), nn.Linear(6, 2))
    geta = plain(net, 4)
    assert not geta.groups
    assert tuple(geta.protected[0]) == ("0.weight[axis 0]", "does not keep zero in 1.1", "sub")
    assert ("2.weight[axis 0]", "an output of the network", "output") in [tuple(entry) for entry in geta.protected]


class Record(nn.Module):
    """An operator that no rule understands."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.qr(x).R


def test_what_has_no_rule_is_listed_by_operator_and_module_path() -> None:
    geta = plain(nn.Sequential(nn.Linear(4, 6), Record(), nn.Linear(6, 2)), 3, 4)
    listed = [entry for entry in geta.protected if entry.operator == "linalg_qr"]
    assert [entry.path for entry in listed if entry.reason.startswith("an operator without a rule: all it touches is protected")] == ["1"]
    assert any(entry.path == "0.weight[axis 0]" for entry in listed)


def test_a_parameter_that_brings_no_channel_and_cannot_be_cut_is_listed_too() -> None:
    geta = plain(nn.LSTM(6, 8, proj_size=4, batch_first=True), 5, 6)
    assert len(geta.groups) == 0
    named = {entry.path.partition("[")[0] for entry in geta.protected}
    assert named == {name for name, _ in geta.model.named_parameters()}


def parts_of(group: gt.Group) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    producers, consumers = ({(part.parameter, part.axis) for part in parts} for parts in (group.producers, group.consumers))
    return producers, consumers


def test_a_channel_of_a_weight_norm_goes_by_its_length_and_the_direction_keeps_its_numbers() -> None:
    net = nn.Sequential(*(nn.utils.parametrizations.weight_norm(nn.Linear(a, b)) for a, b in ((4, 6), (6, 5), (5, 2))))
    geta = plain(net, 4)
    assert [len(family.groups) for family in geta.families] == [6, 5]
    length, direction = (f"0.parametrizations.weight.original{i}" for i in (0, 1))
    producers, consumers = parts_of(geta.groups[0])
    # the length of a row of the next layer is that of what is left of it, so its column counts, and is zeroed
    assert producers == {(length, 0), ("0.bias", 0), ("1.parametrizations.weight.original1", 1)}
    assert consumers == {(direction, 0)}
    before = geta.model[0].parametrizations.weight.original1.detach().clone()
    geta.mask([0])
    assert torch.equal(geta.model[0].parametrizations.weight.original1, before) and not geta.model[0].weight[0].any()
    assert geta.model(torch.randn(2, 4)).isfinite().all()


def test_a_spectral_norm_loses_rows_and_columns_of_its_matrix_and_what_its_vectors_say_of_them() -> None:
    net = nn.Sequential(*(nn.utils.parametrizations.spectral_norm(nn.Linear(a, b)) for a, b in ((4, 6), (6, 2)))).eval()
    geta = plain(net, 4)
    producers, consumers = parts_of(geta.groups[0])
    assert producers == {("0.weight", 0), ("0.bias", 0), ("1.weight", 1)}
    assert consumers == {("0.parametrizations.weight.0._u", 0), ("1.parametrizations.weight.0._v", 0)}


@pytest.mark.parametrize("how", ["householder", "cayley", "matrix_exp"])
def test_an_orthogonal_weight_is_protected_with_the_way_out(how: str) -> None:
    net = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(4, 6), orthogonal_map=how), nn.ReLU(), nn.Linear(6, 2))
    geta = plain(net, 4)
    assert not geta.groups
    assert [entry for entry in geta.protected if entry.path == "0.weight[axis 0]" and "remove_parametrizations" in entry.reason]


@pytest.mark.parametrize("pattern", ["0", "0.weight", "0.*"])
def test_a_request_protects_what_the_parameter_produces_and_nothing_else(pattern: str) -> None:
    geta = gt.GETA(conv_net(), torch.rand(2, 3, 6, 6), quantize=None, protect=(pattern,))
    assert [family.name for family in geta.families] == ["3"]
    assert ("0.weight[axis 0]", "protected on request", "protect") in [tuple(entry) for entry in geta.protected]


def test_layers_are_never_matched_by_a_part_of_their_name() -> None:
    net = nn.Sequential()
    for i in range(11):
        net.add_module(f"c{i}", nn.Linear(4, 4))
        net.add_module(f"r{i}", nn.ReLU())
    geta = gt.GETA(net, torch.rand(2, 4), quantize=None, protect=("c1",))
    assert [family.name for family in geta.families] == ["c0", *(f"c{i}" for i in range(2, 10))]


def test_a_network_where_nothing_may_go_has_no_groups_and_reasons() -> None:
    geta = plain(nn.Linear(4, 6), 4)
    assert len(geta.groups) == 0 and geta.families == ()
    assert {entry.operator for entry in geta.protected} == {"output"}


def test_producing_rows_at_zero_are_zero_where_they_are_read() -> None:
    torch.manual_seed(0)
    net = randomise(conv_net()).eval()
    geta = plain(net, 3, 6, 6)
    geta.mask([1, 6])
    x = torch.rand(2, 3, 6, 6)
    assert (net[:3](x)[:, 1] == 0).all() and (net[:5](x)[:, 2] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_heads_of_grouped_query_attention_go_with_their_key_head(attention: str) -> None:
    geta = zoo(f"llama_{attention}")
    first = next(family for family in geta.families if family.module_path == "model.layers.0.self_attn.q_proj")
    assert len(first.groups) == 2  # two key heads of 8; frequencies of the rotation, a buffer, decide over nothing
    slices = {(part.parameter.removeprefix("model.layers.0.self_attn."), part.axis): part.indices for part in first.groups[1].slices}
    assert slices == {
        ("q_proj.weight", 0): tuple(range(16, 32)),
        ("k_proj.weight", 0): tuple(range(8, 16)),
        ("v_proj.weight", 0): tuple(range(8, 16)),
        ("o_proj.weight", 1): tuple(range(16, 32)),
    }


@pytest.mark.slow
def test_a_bias_shared_by_all_layers_ties_their_heads() -> None:
    geta = zoo("t5_eager")
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    group = next(group for group in geta.groups if any(part.parameter == bias for part in group.slices))
    names = {part.parameter for part in group.slices}
    assert {f"encoder.block.{i}.layer.0.SelfAttention.{k}.weight" for i in (0, 1) for k in "qkvo"} <= names
    assert not any(name.startswith("decoder") for name in names)


@pytest.mark.slow
def test_a_fused_projection_loses_the_rows_of_a_head_in_three_places() -> None:
    geta = zoo("gpt2_eager")
    bias = "transformer.h.0.attn.c_attn.bias"
    heads = next(family for family in geta.families if any(part.parameter == bias for part in family.groups[0].producers))
    assert len(heads.groups) == 4
    rows = next(part.indices for part in heads.groups[1].slices if part.parameter == bias)
    assert rows == (*range(8, 16), *range(40, 48), *range(72, 80))
