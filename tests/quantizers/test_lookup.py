"""Claims about quantized embedding tables: quantizing the rows a batch reads is quantizing the table."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from geta_nb.config import QuantConfig
from geta_nb.quantizers import WeightQuantizer, fake_quant
from geta_nb.quantizers.parametrized import register
from geta_nb.quantizers.prepare import attach_quantizers

IDS = torch.tensor([[1, 0, 7], [7, 3, 1]])


def quantized(**options) -> nn.Embedding:
    table = nn.Embedding(40, 5, dtype=torch.float64, **options)
    quantizers = attach_quantizers(table, QuantConfig(initial_bits=4))
    quantizer = next(iter(quantizers.weights.values()))
    with torch.no_grad():
        quantizer.exponent.fill_(1.2)
        quantizer.clip_max.mul_(0.2)
    return table


def learned(table: nn.Embedding, whole: bool) -> dict[str, torch.Tensor]:
    out = nn.Embedding.forward(table, IDS) if whole else table(IDS)
    (out * torch.arange(1, out.numel() + 1, dtype=out.dtype).view(out.shape).sin()).sum().backward()
    return {"out": out.detach()} | {name: p.grad.to_dense() for name, p in table.named_parameters()}


@pytest.mark.parametrize("options", [{}, {"padding_idx": 0}, {"sparse": True}, {"scale_grad_by_freq": True}, {"max_norm": 0.5}], ids=str)
def test_rows_have_the_numbers_and_the_gradients_of_the_whole_table(options):
    table = quantized(**options)
    rows, whole = learned(copy.deepcopy(table), False), learned(copy.deepcopy(table), True)
    assert rows.keys() == whole.keys() and len(rows) == 5
    assert torch.equal(rows["out"], whole["out"])
    for name in rows:
        # the same terms in another order: sums of 40 numbers of size 1 in float64
        torch.testing.assert_close(rows[name], whole[name], rtol=1e-12, atol=1e-13)
        assert name == "out" or rows[name].abs().sum() > 0


def test_only_the_rows_that_are_read_are_quantized(monkeypatch):
    table, seen = quantized(), []
    forward = fake_quant._FakeQuantize.apply
    monkeypatch.setattr(fake_quant._FakeQuantize, "apply", lambda x, *rest: seen.append(x.numel()) or forward(x, *rest))
    table(IDS)
    table(torch.arange(40))
    assert seen == [IDS.numel() * 5, 40 * 5]


def test_a_module_that_does_more_than_look_up_keeps_its_own_forward():
    class Scaled(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * 2

    table = Scaled(40, 5)
    attach_quantizers(table, QuantConfig())
    assert torch.equal(table(IDS), table.weight[IDS] * 2)


def test_giving_the_quantizer_up_gives_the_forward_back():
    table = nn.Embedding(40, 5)
    attach_quantizers(table, QuantConfig()).undo()
    assert type(table) is nn.Embedding
    assert torch.equal(table(IDS), table.weight[IDS])


def test_a_table_whose_rows_have_ranges_of_their_own_is_quantized_whole():
    """``attach_quantizers`` gives tables one range; a quantizer that a user shares with one may have more."""
    table = nn.Embedding(40, 5, dtype=torch.float64)
    register(table, "weight", WeightQuantizer.for_weight(table.weight, initial_bits=4, axis=0))
    assert torch.equal(table(IDS), nn.Embedding.forward(table, IDS))
