"""Which weights that others compute can stand in a graph without what computes them, and what is said of the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

import geta_nb as gt
from tests.zoo.parametrized_nets import NETS, Gated, Same, Shared


class Noisy(nn.Module):
    """Random numbers in evaluation too."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 1e-3 * torch.rand_like(weight)


class Read(nn.Module):
    """The gate of a weight is also read by the network, through its parametrization."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        register_parametrization(self.a, "weight", Gated(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x).relu() * self.a.parametrizations.weight[0].gate[:, 0])


class Chain(nn.Module):
    """Two layers share a number, which a third reads past its parametrization: none of them can stand alone."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        for layer in (self.a, self.b):
            register_parametrization(layer, "weight", Shared(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu())


def analysed(model: nn.Module, **options: bool) -> gt.GETA:
    torch.manual_seed(0)
    return gt.GETA(model.double().eval(), torch.randn(4, 6).double(), quantize=gt.QuantConfig(**options))


def noisy() -> nn.Module:
    model = NETS["gated"]()
    register_parametrization(model[2], "weight", Noisy())
    return model


@pytest.mark.parametrize(("build", "name", "why"), [
    (NETS["reader"], "a.weight", "from what is read elsewhere too"), (Read, "a.weight", "from what is read elsewhere too"),
    (noisy, "2.weight", "with random numbers"),
])  # fmt: skip
def test_what_cannot_stand_alone_stays_and_the_hint_is_to_remove_the_parametrization(build, name, why):
    geta = analysed(build())
    reason = geta.quantizers.excluded[name]
    assert why in reason and "remove the parametrization first" in reason and name not in geta.quantizers.computed
    assert name.rpartition(".")[0] not in geta.bit_widths()


def test_parts_that_two_weights_share_are_free_where_both_stand_alone():
    assert set(analysed(Chain()).bit_widths()) == {"a", "b", "head"}


def test_a_weight_that_is_read_by_no_matrix_operator_is_idle():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.table = nn.Linear(6, 8), nn.Linear(8, 4)
            register_parametrization(self.table, "weight", Same())

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * self.table.weight.sum(0)

    geta = analysed(Scaled())
    assert set(geta.bit_widths()) == {"a"} and "no matrix operator" in geta.quantizers.excluded["table.weight"]


def test_what_computes_a_weight_costs_nothing_and_the_weight_is_priced_as_a_plain_one():
    """A plain network with the same weights has the same costs: products, parameters and bytes."""
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))
    plain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    figures = [analysed(net).cost.evaluate(None, {"0": 4.0, "2": 6.0}, {}).figures() for net in (model, plain)]
    assert figures[0] == figures[1] and figures[0]["macs_full"] == 4 * (48 + 24)


def test_torchs_own_trace_finds_the_quantizer_behind_what_computes_the_weight():
    geta = analysed(NETS["two_in_a_row"](), activations=True)
    assert geta.trace_quantized().summary() == geta.qadg.summary()
    assert "2.weight" in {branch.name for branch in geta.qadg.branches}
