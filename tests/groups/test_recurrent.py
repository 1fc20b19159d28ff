"""Recurrent layers: units go from every gate, direction and layer at once, exactly, and their products are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.zoo import laws
from tests.zoo.catalogue import randomise


class Tagger(nn.Module):
    """A recurrent layer between two linear ones, from a zero, a learned or a given state."""

    def __init__(self, kind: type[nn.RNNBase], state: str = "zero", **options: Any) -> None:
        super().__init__()
        directions = 2 if options.get("bidirectional") else 1
        self.first, self.last = nn.Linear(5, 6), nn.Linear(8 * directions, 3)
        self.cell = kind(6, 8, batch_first=True, **options)
        self.state = nn.Parameter(torch.randn(directions * options.get("num_layers", 1), 1, 8)) if state == "learned" else None
        self.ones = state == "ones"

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.ones:
            return self.last(self.cell(x, torch.ones(1, x.shape[0], 8, dtype=x.dtype))[0])
        return self.last((self.cell(x) if self.state is None else self.cell(x, self.state.expand(-1, len(x), -1).contiguous()))[0])


NETS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Tagger(nn.LSTM),
    "gru": lambda: Tagger(nn.GRU),
    "rnn": lambda: Tagger(nn.RNN),
    "rnn_relu": lambda: Tagger(nn.RNN, nonlinearity="relu"),
    "both_directions": lambda: Tagger(nn.LSTM, bidirectional=True),
    "deep": lambda: Tagger(nn.GRU, num_layers=2),
    "deep_both_directions": lambda: Tagger(nn.LSTM, num_layers=2, bidirectional=True),
    "without_bias": lambda: Tagger(nn.GRU, bias=False),
    "learned_state": lambda: Tagger(nn.GRU, "learned"),
}


def geta_of(make: Callable[[], nn.Module], mode: str = "plain") -> Any:
    torch.manual_seed(0)
    return laws.geta_of(randomise(make()).double().eval(), (torch.randn(2, 4, 5, dtype=torch.float64),), mode=mode)


@pytest.mark.parametrize("name", NETS)
def test_units_and_inputs_of_a_recurrent_layer_go_exactly(name: str) -> None:
    geta = geta_of(NETS[name])
    assert sorted(len(family.groups) for family in geta.families) == [6, 8]
    for share in (0.3, 1.0):
        subnet = laws.check_exact_removal(geta, laws.some_groups(geta, 0, share))
        laws.check_preview(geta, subnet)
        assert subnet.geta_info.kind == "native"
    assert subnet.cell.hidden_size == subnet.cell.input_size == 1


def test_a_quantized_network_has_the_same_units() -> None:
    geta = geta_of(NETS["lstm"], "both")
    assert laws.slice_sets(geta) == laws.slice_sets(geta_of(NETS["lstm"]))
    laws.check_exact_removal(geta, laws.some_groups(geta, 0))


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_units_that_start_from_another_state_than_zero_stay(kind: type[nn.RNNBase]) -> None:
    geta = geta_of(lambda: Tagger(kind, "ones"))
    assert [len(family.groups) for family in geta.families] == [6]
    laws.check_exact_removal(geta, laws.some_groups(geta, 0))
