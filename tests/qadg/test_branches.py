"""Quantizer branches are found by structure, whoever wrote the quantizer; what is none is not folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

import geta_nb as gt
from geta_nb.graph.nodes import operator_name
from geta_nb.graph.trace import trace_model
from geta_nb.qadg.branches import Branch, find_branches
from tests.qadg import foreign_quantizers as fq
from tests.small_nets import assert_same, evaluate, every_third

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def none() -> None:
    return None


class Around(nn.Module):
    """Runs a function between two linear layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)
        self.step = nn.Parameter(torch.tensor(0.1))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x), self.step))  # type: ignore[call-arg]


def branches_of(model: nn.Module, *inputs: Tensor) -> tuple[fx.GraphModule, tuple[Branch, ...]]:
    module = trace_model(model, inputs).module
    return module, find_branches(module)


def operators_of(module: fx.GraphModule, branch: Branch) -> list[str]:
    nodes = {node.name: node for node in module.graph.nodes}
    return [operator_name(nodes[name]) for name in branch.nodes]


FOREIGN = {
    "lsq": (fq.Lsq, fq.Lsq, {"div", "clamp", "round", "sub", "add", "mul"}),
    "lsq, estimator outside": (fq.LsqOutside, fq.LsqOutside, {"div", "round", "clamp", "mul", "sub", "add"}),
    "affine": (fq.Affine, fq.Affine, {"div", "round", "add", "clamp", "sub", "mul"}),
    "pact": (fq.Lsq, fq.Pact, {"abs", "sub", "add", "mul", "round", "div"}),
    "torch": (fq.Torch, fq.Torch, {"fake_quantize_per_tensor_affine"}),
    "torch, numbers": (fq.TorchNumbers, fq.TorchNumbers, {"fake_quantize_per_tensor_affine"}),
    "torch, learnable": (fq.TorchLearnable, fq.TorchLearnable, {"_fake_quantize_learnable_per_tensor_affine"}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_fake_quantizers_that_others_wrote_are_folded(name: str) -> None:
    weight, data, _ = FOREIGN[name]
    torch.manual_seed(0)
    model = fq.conv_net(weight, data).eval()
    geta = gt.GETA(model, IMAGES, quantize=None)
    plain = gt.GETA(fq.conv_net(none, none).eval(), IMAGES, quantize=None)
    branches = geta.qadg.branches
    assert [b.kind for b in branches].count("attached") == [b.kind for b in branches].count("inserted") == 3
    assert {b.name for b in branches} == {"0.weight", "3.weight", "5.weight", "0: input", "3: input", "5: input"}
    assert all(b.keeps_zero and b.operator.startswith("conv2d") for b in branches)
    convs = [v for v in geta.qadg.vertices if v.operator == "conv2d"]
    assert [(v.weight_quantizer, v.input_quantizer) for v in convs] == [(f"{i}.weight", f"{i}: input") for i in (0, 3, 5)]
    assert [v.operator for v in geta.qadg.vertices] == [v.operator for v in plain.qadg.vertices], "something of a quantizer was left"
    assert [g.slices for g in geta.groups] == [g.slices for g in plain.groups] and len(geta.groups) == 16
    geta.mask(every_third(geta))
    # 72 float32 terms in another order
    assert_same(evaluate(geta.construct_subnet(), IMAGES), evaluate(model, IMAGES), atol=1e-5)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_branch_lists_exactly_the_nodes_of_its_quantizer(name: str) -> None:
    weight, data, operators = FOREIGN[name]
    module, branches = branches_of(fq.conv_net(none if name == "pact" else weight, data).eval(), IMAGES)
    nodes = {node.name: node for node in module.graph.nodes}
    for branch in branches:
        inside = {nodes[n] for n in branch.nodes}
        assert {operator_name(node) for node in inside} - {"detach", "getitem"} == operators
        outside = {node.name for node in inside if any(user not in inside for user in node.users)}
        assert outside == {branch.exit} and branch.entry not in branch.nodes
        read = {source for node in inside for source in node.all_input_nodes} - inside
        assert all(source.name == branch.entry or source.meta["val"].numel() == 1 for source in read)


def test_arithmetic_written_into_the_convolution_itself_is_folded() -> None:
    model = nn.Sequential(fq.InlineConv(3, 8, 3), nn.ReLU(), fq.InlineConv(8, 4, 3)).eval()
    geta = gt.GETA(model, IMAGES, quantize=None)
    assert {b.name: b.parameters for b in geta.qadg.branches} == {
        "0.weight": ("0.step",), "0: input": ("0.input_step",), "2.weight": ("2.step",), "2: input": ("2.input_step",)
    }  # fmt: skip
    assert [v.operator for v in geta.qadg.vertices] == ["placeholder", "conv2d", "relu", "conv2d", "output"]


NO_QUANTIZER: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bare round": lambda x, step: torch.round(x),
    "scaled once": lambda x, step: torch.round(x / step),
    "scaled after": lambda x, step: torch.round(x) * step,
    "a step for each element": lambda x, step: torch.round(x / x.abs()) * step,
    "a step from the data": lambda x, step: torch.round(x / x.abs().max() * 127) * x.abs().max(),
    "two tensors": lambda x, step: torch.round((x + x.flip(1)) / step) * step,
}


@pytest.mark.parametrize("name", NO_QUANTIZER)
def test_a_rounding_that_is_no_quantizer_is_not_folded_into_a_layer(name: str) -> None:
    module, branches = branches_of(Around(NO_QUANTIZER[name]), torch.randn(2, 4))
    # a sum of two tensors may be an entry: what follows is a quantizer of it
    assert [operators_of(module, branch) for branch in branches] == ([["div", "round", "mul"]] if name == "two tensors" else [])


AROUND: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "residual sum": lambda x, s: x + torch.round(x / s) * s,
    "residual difference": lambda x, s: torch.round(x / s) * s - x,
    "gate": lambda x, s: x * (torch.round(x / s) * s),
    "activations": lambda x, s: torch.relu(torch.round(torch.tanh(x) / s) * s),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_a_quantizer_is_not_swallowed(name: str) -> None:
    module, branches = branches_of(Around(AROUND[name]), torch.randn(2, 4))
    assert [operators_of(module, branch) for branch in branches] == [["div", "round", "mul"]]


@pytest.mark.parametrize("make", [fq.DoReFa, fq.Dynamic, lambda: fq.PerChannel(8)])
def test_what_is_no_branch_is_still_cut_rightly(make: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(fq.QuantConv(3, 8, 3, make(), None), nn.ReLU(), fq.QuantConv(8, 3, 1, None, None)).double().eval()
    images = IMAGES.double()
    geta = gt.GETA(model, images, quantize=None)
    assert all(not b.keeps_zero for b in geta.qadg.branches)
    geta.mask(every_third(geta))
    assert_same(evaluate(geta.construct_subnet(), images), evaluate(model, images), atol=1e-12)


def test_an_offset_that_moves_zero_is_seen() -> None:
    model, images = fq.conv_net(none, fq.ShiftedAffine).double().eval(), IMAGES.double()
    geta = gt.GETA(model, images, quantize=None)
    assert len(geta.qadg.branches) == 3 and not any(b.keeps_zero for b in geta.qadg.branches)
    assert any("zero" in entry.reason for entry in geta.protected)  # a padded convolution reads it
    assert [family.name for family in geta.families] == ["3"]  # the last layer has a bias that takes the offset over
    geta.mask(every_third(geta))
    assert_same(evaluate(geta.construct_subnet(), images), evaluate(model, images), atol=1e-12)


def test_an_offset_that_trains_may_move_zero_tomorrow() -> None:
    class Offset(fq.Lsq):
        def __init__(self, trains: bool) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.tensor(0.0), requires_grad=trains)

        def forward(self, x: Tensor) -> Tensor:
            return torch.round((x - self.offset) / self.step) * self.step + self.offset

    nets = [fq.conv_net(none, lambda trains=trains: Offset(trains)).eval() for trains in (False, True)]
    assert [branches_of(net, IMAGES)[1][0].keeps_zero for net in nets] == [True, False]


def test_a_quantizer_that_two_weights_share_is_two_branches() -> None:
    shared = fq.Lsq()
    geta = gt.GETA(fq.conv_net(lambda: shared).eval(), IMAGES, quantize=None)
    assert [b.name for b in geta.qadg.branches] == ["0.weight", "3.weight", "5.weight"]
    assert len({b.parameters for b in geta.qadg.branches}) == 1 and len(geta.qadg.branches[0].parameters) == 1


def test_a_module_that_is_called_twice_has_two_branches_of_different_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.layer(torch.relu(self.layer(x)))))

    geta = gt.GETA(Twice(), torch.randn(3, 4), quantize=gt.QuantConfig(activations=True))
    names = [b.name for b in geta.qadg.branches]
    assert len(set(names)) == len(names) == 6 and sum(name.endswith("@2") for name in names) == 2
    assert [v.weight_quantizer for v in geta.qadg.vertices if v.operator == "linear"] == ["layer", "layer", "head"]
    assert [v.input_quantizer for v in geta.qadg.vertices if v.operator == "linear"] == ["layer", "layer", "head"]


@pytest.mark.parametrize("exponent", [True, False])
def test_our_own_quantizers_are_found_with_and_without_a_power(exponent: bool) -> None:
    from tests.small_nets import Residual

    config = gt.QuantConfig(activations=True, learn_exponent=exponent, learn_activation_exponent=exponent)
    geta = gt.GETA(Residual(), IMAGES, quantize=config)
    assert len(geta.qadg.branches) == 6 and all(b.keeps_zero for b in geta.qadg.branches)
    assert sorted(geta.qadg.layers.values()) == ["body", "body", "head", "head", "stem", "stem"]
    assert [v.operator for v in geta.qadg.vertices] == ["placeholder", "conv2d", "relu", "conv2d", "add", "relu", "conv2d", "output"]


def test_where_a_quantizer_of_the_models_own_stands_ours_is_not_added() -> None:
    geta = gt.GETA(fq.conv_net(fq.Lsq).eval(), IMAGES)
    assert geta.bit_widths() == {}
    assert {"0.weight", "3.weight", "5.weight"} <= set(geta.quantizers.excluded)
