"""The subnet: native or graph, it computes what the masked model computes, and is a module like any other."""

from __future__ import annotations

import copy
import functools
import io
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import ArtifactError, NonFiniteError
from geta_nb.graph.comparison import agree_in_float64, agrees, max_difference
from geta_nb.subnet.build import SubnetInfo, weight_format
from tests.small_nets import IMAGES, ROWS, Literal, assert_same, assert_unchanged, cnn, evaluate, every_third, snapshot, train
from tests.zoo.odd_nets import Net

KINDS = {"native": (cnn, IMAGES), "graph": (Literal, ROWS)}
CLOSE = 2e-6
"""Some 100 float32 terms of size one in another order: 100 * 6e-8, a third of it to spare."""


def made(kind: str, quantize: gt.QuantConfig | None = None) -> tuple[gt.GETA, nn.Module, Tensor]:
    """A GETA whose model is masked by a third, the subnet, and inputs."""
    make, inputs = KINDS[kind]
    torch.manual_seed(0)
    geta = gt.GETA(make().eval(), inputs, quantize=quantize or gt.QuantConfig(activations=True))
    geta.calibrate([inputs])
    geta.mask(every_third(geta))
    return geta, geta.construct_subnet(), inputs


@pytest.fixture(scope="module", params=[(kind, granularity) for granularity in ("tensor", "channel") for kind in KINDS], ids="-".join)
def cut(request: pytest.FixtureRequest) -> tuple[gt.GETA, nn.Module, Tensor, str]:
    kind, granularity = request.param
    return (*made(kind, gt.QuantConfig(activations=True, granularity=granularity)), kind)


Cut = tuple[gt.GETA, nn.Module, Tensor, str]


def test_the_kind_is_native_where_the_class_can_be_cut_and_graph_elsewhere(cut: Cut) -> None:
    geta, subnet, inputs, kind = cut
    assert subnet.geta_info.kind == kind == geta.report(subnet).to_dict()["module_kind"]
    assert type(subnet) is type(KINDS[kind][0]()) if kind == "native" else isinstance(subnet, torch.fx.GraphModule)
    assert_same(evaluate(subnet, inputs), evaluate(geta.model, inputs), atol=CLOSE)


def test_it_holds_exactly_what_the_report_says(cut: Cut) -> None:
    geta, subnet, _, _ = cut
    count = sum(p.numel() for name, p in subnet.named_parameters() if "quantizer" not in name)
    assert count == geta.report(subnet).to_dict()["parameters"]["subnet"] < geta.cost.dense.parameters


def test_its_weights_lie_on_their_grids(cut: Cut) -> None:
    _, subnet, _, _ = cut
    parameters = dict(subnet.named_parameters())
    assert subnet.geta_info.formats and all(name in parameters for name in subnet.geta_info.formats)
    for name, form in subnet.geta_info.formats.items():
        codes = parameters[name].detach().double() / form.steps(parameters[name].double())
        # d in float32 and codes up to 2**15: 2**15 * 2**-24
        assert (codes - codes.round()).abs().max() < 4e-3 and codes.abs().max() <= 2 ** (form.bits - 1) - 1 + 4e-3
    assert set(subnet.geta_info.activation_formats) in ({"first", "second"}, {"0", "3", "8"})


def test_it_survives_torch_save_and_deepcopy(cut: Cut) -> None:
    _, subnet, inputs, kind = cut
    buffer = io.BytesIO()
    torch.save(subnet, buffer)
    loaded = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    for twin in (loaded, copy.deepcopy(subnet)):
        assert_same(evaluate(twin, inputs), evaluate(subnet, inputs))
        assert twin.geta_info.kind == kind and twin.geta_info.formats == subnet.geta_info.formats
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in subnet.parameters()}


def test_its_state_dict_goes_round(cut: Cut) -> None:
    geta, subnet, inputs, _ = cut
    twin = geta.construct_subnet()
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    twin.load_state_dict(subnet.state_dict())
    assert_same(evaluate(twin, inputs), evaluate(subnet, inputs))


def test_it_can_be_exported(cut: Cut) -> None:
    _, subnet, inputs, _ = cut
    exported = torch.export.export(copy.deepcopy(subnet).eval(), (inputs,), strict=False)
    # the exported quantizer writes the same formula in other operators
    assert_same([exported.module()(inputs).detach()], evaluate(subnet, inputs), atol=CLOSE)


def test_a_file_gives_back_the_graph_bit_for_bit(cut: Cut, tmp_path: Path) -> None:
    _, subnet, inputs, kind = cut
    gt.save(subnet, tmp_path / "net")
    loaded = gt.load(tmp_path / "net")
    graph = subnet if kind == "graph" else subnet.geta_info.graph
    assert_same(evaluate(loaded, inputs), evaluate(graph, inputs))
    assert_same(evaluate(loaded, inputs), evaluate(subnet, inputs), atol=CLOSE)
    assert loaded.geta_info.formats == subnet.geta_info.formats
    filled = gt.load(tmp_path / "net", into=copy.deepcopy(subnet))
    assert_same(evaluate(filled, inputs), evaluate(subnet, inputs))


def test_a_native_subnet_and_its_graph_share_their_tensors() -> None:
    _, subnet, inputs = made("native")
    graph = subnet.geta_info.graph
    shared = {id(p) for p in subnet.parameters()}
    assert {id(p) for p in graph.parameters()} == shared
    with torch.no_grad():
        subnet[8].bias.add_(3)
    assert_same(evaluate(graph, inputs), evaluate(subnet, inputs), atol=CLOSE)
    assert "geta_info" not in dict(subnet.named_modules())


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_not_changed_and_nothing_is_written(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geta, _, inputs = made(kind)
    monkeypatch.chdir(tmp_path)
    before, outputs = snapshot(geta.model), evaluate(geta.model, inputs)
    subnet = geta.construct_subnet()
    with torch.no_grad():
        for p in subnet.parameters():
            p.add_(1)
    assert_unchanged(geta.model, before)
    assert_same(evaluate(geta.model, inputs), outputs)
    geta.report(subnet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_subnet_can_be_compressed_again_and_its_dense_costs_stay_the_first_ones(kind: str, tmp_path: Path) -> None:
    geta, subnet, inputs = made(kind)
    before, dense = evaluate(subnet, inputs), geta.cost.dense
    second = gt.GETA(subnet, inputs, quantize=gt.QuantConfig(activations=True))
    assert_same(evaluate(second.model, inputs), before, atol=CLOSE)  # the codes it had, not fresh ones
    assert second.bit_widths() == geta.bit_widths() and second.cost.dense is dense
    second.calibrate([inputs])
    budget, schedule = gt.Budget(group_sparsity=0.25, bit_range=(4, 6)), gt.Schedule(1, 2, 1, 4, 2)
    optimizer = second.qasso(torch.optim.SGD, lr=1e-2, budget=budget, schedule=schedule)
    for _ in range(9):
        optimizer.zero_grad()
        second.model(inputs).square().sum().backward()
        optimizer.step()
    again = second.construct_subnet()
    assert again.geta_info.kind == kind
    assert_same(evaluate(again, inputs), evaluate(second.model, inputs), atol=1e-4)
    report = second.report(again).to_dict()
    assert report["parameters"]["dense"] == dense.parameters > report["parameters"]["subnet"]
    assert report["relative_bops"] < geta.report(geta.construct_subnet()).to_dict()["relative_bops"]
    gt.save(again, tmp_path / "net")
    assert_same(evaluate(gt.load(tmp_path / "net"), inputs), evaluate(again, inputs), atol=1e-4)


def test_a_subnet_that_left_its_grid_is_refused_by_save_and_accepted_after_another_cut(tmp_path: Path) -> None:
    _, subnet, inputs = made("native")
    optimizer = torch.optim.SGD(subnet.parameters(), lr=1e-2)
    train(subnet, optimizer, range(2))
    with pytest.raises(ArtifactError, match=r"save: (?s:.*)at: +\d"):
        gt.save(subnet, tmp_path / "net")
    assert not list(tmp_path.iterdir())
    again = gt.GETA(subnet, inputs).construct_subnet()
    gt.save(again, tmp_path / "net")
    assert_same(evaluate(gt.load(tmp_path / "net"), inputs), evaluate(again, inputs), atol=CLOSE)


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 8)
            self.third.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.third(self.second(torch.relu(self.first(x))))

    geta = gt.GETA(Tied(), ROWS)
    geta.mask(every_third(geta))
    subnet = geta.construct_subnet()
    assert subnet.third.weight is subnet.first.weight
    assert_same(evaluate(subnet, ROWS), evaluate(geta.model, ROWS), atol=CLOSE)


def test_frozen_parameters_stay_frozen() -> None:
    model = cnn()
    model[0].weight.requires_grad_(False)
    subnet = gt.GETA(model, IMAGES).construct_subnet()
    assert not subnet[0].weight.requires_grad and subnet[3].weight.requires_grad


def test_input_quantizers_of_a_subnet_do_not_train_until_it_is_compressed_again() -> None:
    _, subnet, inputs = made("native")
    assert not any(p.requires_grad for name, p in subnet.named_parameters() if "quantizer" in name)
    second = gt.GETA(subnet, inputs)
    assert all(q.step_size.requires_grad and q.clip_max.requires_grad for q in second.quantizers.activations.values())


def test_a_quantizer_without_a_bit_width_is_refused_by_name() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    with torch.no_grad():
        geta.quantizers.weights["3"].step_size.fill_(-0.1)
    with pytest.raises(NonFiniteError, match=r"(?s)a quantizer has no bit width.*at: +3\n.*step_size=-0.1"):
        geta.construct_subnet()


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    with torch.no_grad():
        geta.model[3].bias[1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"(?s)construct_subnet: a weight is not finite.*at: +3\.bias"):
        geta.construct_subnet()


def test_bits_between_two_integers_take_the_upper_one() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    quantizer = geta.quantizers.weights["0"]
    with torch.no_grad():
        quantizer.step_size.mul_(1.3)
    assert 15 < float(quantizer.bit_width()) < 16 and weight_format(quantizer).bits == 16
    assert isinstance(geta.construct_subnet().geta_info, SubnetInfo)


class Steep(nn.Module):
    """Rounds a sum to halves: where the sum lies between two, its last bit decides."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        total: Any = 0
        for i in self.order:
            total = total + x[:, i]
        return torch.round(total)


def test_a_code_that_falls_the_other_way_in_float32_is_settled_in_float64() -> None:
    # half a unit in the last place of 0.5 is 2.98e-8: one such term is lost, two together are not, and 0.5 rounds down
    x = torch.tensor([[0.5, 2.9e-8, 2.9e-8]])
    one, other = Steep([0, 1, 2]), Steep([2, 1, 0])
    assert not agrees(one, [other(x)], (x,), {})
    assert agree_in_float64(one, other, (x,), {}) and not agree_in_float64(one, nn.Identity(), (x,), {})


def test_numbers_that_were_rounded_on_the_way_agree_up_to_that_rounding_and_no_further():
    one = nn.Linear(8, 4)
    rounded, changed = copy.deepcopy(one), copy.deepcopy(one)
    with torch.no_grad():
        rounded.weight *= 1 + torch.finfo(torch.float32).eps
        changed.weight *= 1.001
    x = torch.randn(3, 8)
    assert not agree_in_float64(one, rounded, (x,), {})
    assert agree_in_float64(one, rounded, (x,), {}, inside=(torch.float32,))
    assert not agree_in_float64(one, changed, (x,), {}, inside=(torch.float32,))


class Sines(nn.Module):
    """Three layers of sin(30 x): a rounding of float32 is some 1e4 times as large at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(30 * layer(x))
        return self.head(x)


@pytest.mark.parametrize("quantize", [None, gt.QuantConfig(initial_bits=8)], ids=["plain", "weights"])
def test_roundings_that_a_steep_network_makes_large_are_no_mistake(quantize: gt.QuantConfig | None) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        geta = gt.GETA(Sines().eval(), torch.rand(2, 50, 2), quantize=quantize)
        geta.mask(range(0, 48, 3))
        assert geta.construct_subnet().geta_info.facts.max_abs_difference < 1e-2


def test_differences_treat_equal_infinities_as_equal_and_lost_numbers_as_infinite() -> None:
    inf, nan = float("inf"), float("nan")
    assert max_difference([torch.tensor([1.0, -inf, nan])], [torch.tensor([1.5, -inf, nan])]) == 0.5
    assert max_difference([torch.tensor([1.0])], [torch.tensor([nan])]) == inf
    assert max_difference([torch.ones(2)], [torch.ones(3)]) == inf
    assert max_difference([torch.ones(2, dtype=torch.complex64)], [torch.ones(2, dtype=torch.complex64) * (1 + 1j)]) == 1
    assert max_difference([torch.tensor([True])], [torch.tensor([False])]) == 1


def test_casts_and_limits_of_a_graph_subnet_follow_its_dtype() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        h = torch.relu(s.a(x)).float().to(x.dtype).view(-1, 4, 4)  # a literal size: no class can be cut
        weights = h.masked_fill(x[:, :1, None] > 0.5, torch.finfo(x.dtype).min).softmax(1) * h
        return s.b(weights.sum(1))

    net = Net(run, {"a": nn.Linear(8, 16), "b": nn.Linear(4, 3)}).double().eval()
    inputs = torch.randn(6, 8, dtype=torch.float64)
    geta = gt.GETA(net, (inputs,), quantize=None)
    geta.mask([geta.groups[0].index])
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "graph"
    for dtype, close in ((torch.float32, 1e-5), (torch.float16, 1e-2)):  # some ten terms of size one: 10 * 1.2e-7 and 10 * 1e-3
        expected = copy.deepcopy(net).to(dtype)(inputs.to(dtype))
        got = copy.deepcopy(subnet).to(dtype)(inputs.to(dtype))
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected, rtol=0, atol=close)
    assert subnet(inputs).dtype == torch.float64  # the copies were cast, not this one


def test_a_forward_that_a_trainer_decorated_is_left_out_of_the_subnet() -> None:
    """accelerate puts mixed precision around the model's forward, on the object: neither the comparison nor the subnet may have it."""
    geta = gt.GETA(cnn(), IMAGES)
    plain, model = evaluate(geta.model, IMAGES), geta.model
    inner = type(model).forward

    @functools.wraps(inner)
    def forward(self: nn.Module, *args: Any) -> torch.Tensor:
        return 2 * inner(self, *args)

    model.forward = MethodType(forward, model)
    subnet = geta.construct_subnet()
    assert "forward" in vars(model) and "forward" not in vars(subnet) and subnet.geta_info.kind == "native"
    # sums of 72 terms in another order, float32
    assert_same(evaluate(subnet, IMAGES), plain, atol=1e-6)
