"""Ranges while bits fall: fitted anew at each fall, learned at fixed bits by the whole gradient, one width for all channels of a layer."""

import copy

import pytest
import torch
from torch import tensor

from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import GetaWarning
from geta_nb.qasso.projection import QuantizerBank
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.schedule import Schedule
from geta_nb.quantizers import ActivationQuantizer, WeightQuantizer, fake_quantize, fitted_clip, parameter_tensors, step_size
from tests.qasso.nets import BOTH, COLLAPSES, compress

CHANNELS = QuantConfig(activations=True, granularity="channel", learn_activation_exponent=True)
FALLS = Schedule(2, 12, 3, 14, 2, 4, joint_start=4)  # of the bound: after steps 6, 10 and 14
pytestmark = pytest.mark.filterwarnings(COLLAPSES)


def widths(quantizer):
    top = quantizer.clip_max.detach() ** quantizer.exponent.detach()
    return torch.log2(top / quantizer.step_size.detach() + 1) + quantizer.signed


@pytest.mark.parametrize("config", [BOTH, CHANNELS], ids=["tensor", "channel"])
def test_a_fall_fits_the_range_of_a_weight_to_its_values(config):
    run = compress(config=config, schedule=FALLS, lr_quant=0.0, budget=Budget(0.0))
    run.train(5)
    before = {layer: q.clip_max.detach().clone() for layer, q in run.quantizers.weights.items()}
    run.train(1)
    weights = parameter_tensors(run.model)
    for layer, quantizer in run.quantizers.weights.items():
        torch.testing.assert_close(widths(quantizer), torch.full_like(quantizer.step_size, 12), atol=1e-4, rtol=0)
        fitted = fitted_clip(weights[f"{layer}.weight"], 2.0**11 - 1, before[layer], quantizer.exponent.detach())
        torch.testing.assert_close(quantizer.clip_max.detach(), fitted)


@pytest.mark.parametrize("rules", ["default", "paper"])
def test_an_outlier_holds_a_range_open_only_where_ranges_are_not_fitted_anew(rules):
    run = compress(config=BOTH, schedule=FALLS, rules=rules, lr_quant=0.0, inner=torch.optim.SGD, lr=0.0)
    with torch.no_grad():
        run.model.conv2.parametrizations.weight.original[0, 0] *= 0
        run.model.conv2.parametrizations.weight.original[0, 0, 0, 0] = 30.0
        run.quantizers.weights["conv2"].set_range(30.0)
        run.quantizers.activations["conv2"].set_range(500.0)
    run.train(14)
    assert run.quantizers.weights["conv2"].bit_width().item() == pytest.approx(4, abs=1e-4)
    narrowed = run.quantizers.weights["conv2"].clip_max < 29, run.quantizers.activations["conv2"].clip_max < 100
    assert narrowed == ((True, True) if rules == "default" else (False, False))


def test_inputs_that_nobody_saw_keep_their_range():
    run = compress(config=BOTH, schedule=FALLS, lr_quant=0.0)
    quantizer = run.quantizers.activations["conv2"]
    run.optimizer.bank.histograms[1].counts.zero_()
    run.optimizer.bank.refit([4], [4] * 6)
    assert quantizer.clip_max.item() == 3.0 and quantizer.bit_width().item() == pytest.approx(4, abs=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("shape", [(), (3, 1)], ids=["tensor", "channel"])
@pytest.mark.parametrize("signed", [True, False])
def test_tied_gradients_are_those_of_the_loss_as_a_function_of_clip_and_exponent_at_fixed_bits(frozen, shape, signed):
    torch.manual_seed(0)
    x, weights, bits = torch.randn(3, 50, dtype=torch.float64), torch.randn(3, 50, dtype=torch.float64), 4
    clip = (torch.rand(shape, dtype=torch.float64) + 0.5).requires_grad_()
    exponent = tensor(1.2, dtype=torch.float64, requires_grad=True)
    loss = (weights * fake_quantize(x, step_size(bits, clip, exponent, signed=signed), clip, exponent, signed=signed)).sum()
    expected = torch.autograd.grad(loss, (clip, exponent))
    quantizer = WeightQuantizer(clip.detach(), initial_bits=bits, signed=signed)
    with torch.no_grad():
        quantizer.exponent.fill_(1.2)
        quantizer.step_size.copy_(step_size(bits, clip, exponent, signed=signed))
    bank = QuantizerBank({"l": quantizer}, {}, [(2, bits)])
    if frozen:
        bank.frozen = [bits]
    (weights * quantizer(x)).sum().backward()
    bank.tie(None)
    torch.testing.assert_close((quantizer.clip_max.grad, quantizer.exponent.grad), expected)
    assert not quantizer.step_size.grad.any()


def test_a_width_below_its_bound_keeps_the_gradients_of_the_paper():
    quantizer = WeightQuantizer(tensor(1.0), initial_bits=5)
    bank = QuantizerBank({"l": quantizer}, {}, [(2, 8)])
    quantizer(torch.randn(100, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    before = [p.grad.clone() for p in quantizer.parameters()]
    bank.tie(None)
    assert all(torch.equal(p.grad, g) for p, g in zip(quantizer.parameters(), before, strict=True)) and before[0] != 0


@pytest.mark.parametrize("inner", [torch.optim.Adam, torch.optim.Rprop], ids=["one vector", "one by one"])
@pytest.mark.parametrize("tie", ["bound", "frozen", "never"])
def test_the_channels_of_a_layer_share_one_width_at_every_step_and_a_whole_one_in_the_end(inner, tie):
    run = compress(config=CHANNELS, schedule=FALLS, inner=inner, lr=1e-3, rules=Rules(tie=tie), budget=Budget(0.5, bit_range=(3, 16)))

    def check():
        for quantizer in run.quantizers.weights.values():
            found = widths(quantizer)
            assert quantizer.step_size.numel() == quantizer.clip_max.numel() > 1
            assert float(found.max() - found.min()) < 1e-3 and float(found.min()) > 3 - 1e-3

    run.train(FALLS.cool_down_start + 2, after=check)
    bits = run.optimizer.bit_widths()
    assert all(isinstance(b, int) and 3 <= b <= 4 for b in bits.values())
    for layer, quantizer in run.quantizers.weights.items():
        assert quantizer.bit_width().item() == pytest.approx(bits[layer], abs=1e-4)
    assert int((~run.optimizer.group_mask).sum()) == run.optimizer.n_redundant


@pytest.mark.parametrize("config", [BOTH, CHANNELS], ids=["tensor", "channel"])
@pytest.mark.parametrize("stop", [3, 4, 8, 15])
def test_a_run_that_was_stopped_goes_on_bit_for_bit_with_what_its_inputs_were(config, stop):
    whole, first, second = (compress(config=config, schedule=FALLS) for _ in range(3))
    whole.train(20)
    first.train(stop)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.stream.set_state(first.stream.get_state())
    second.train(20 - stop)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True))


@pytest.mark.parametrize("stop", [3, 4])
def test_a_copy_counts_its_inputs_as_the_original_does(stop):
    run = compress(config=BOTH, schedule=FALLS)
    run.train(stop)
    model, optimizer = copy.deepcopy((run.model, run.optimizer))
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 8, 8), torch.randint(4, (8,))) for _ in range(8)]
    for net, steps in ((run.model, run.optimizer), (model, optimizer)):
        for x, y in batches:
            steps.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            steps.step()
    assert all(torch.equal(a, b) for a, b in zip(run.model.state_dict().values(), model.state_dict().values(), strict=True))
    for name, counts in run.optimizer.bank.counted().items():
        assert counts.any() and torch.equal(counts, optimizer.bank.counted()[name])


def test_inputs_are_counted_in_training_alone_and_no_longer_than_bits_fall():
    run = compress(config=BOTH, schedule=FALLS)
    bank = run.optimizer.bank
    assert bank.watching
    with torch.no_grad():
        run.model(torch.randn(2, 3, 8, 8))
    assert not any(h.counts.any() for h in bank.histograms)
    run.train(1)
    assert all(h.counts.any() for h in bank.histograms)
    assert all(q.watcher is None for q in copy.deepcopy(run.model).modules() if isinstance(q, ActivationQuantizer))
    run.train(FALLS.cool_down_start)
    assert not bank.watching


def test_a_sign_that_only_training_shows_is_given_back_and_said():
    run = compress(config=BOTH, schedule=FALLS)
    quantizer = run.quantizers.activations["conv1"]  # sees the images, standardised
    quantizer.set_signed(False)
    with pytest.warns(GetaWarning, match=r"(?s)negative in training.*conv1"):
        run.train(6)
    assert quantizer.signed and quantizer.bit_width().item() == pytest.approx(12, abs=1e-4)


def test_unsigned_inputs_end_at_whole_widths():
    run = compress(config=BOTH, schedule=FALLS)
    for layer in ("conv2", "head"):
        run.quantizers.activations[layer].set_signed(False)
    run.train(FALLS.cool_down_start + 1)
    for layer, bits in run.optimizer.activation_bit_widths().items():
        assert isinstance(bits, int)
        quantizer = run.quantizers.activations[layer]
        assert quantizer.bit_width().item() == pytest.approx(bits, abs=1e-4)
        largest = int(quantizer.codes(torch.full((1,), 1e9)))
        assert largest == 2 ** (bits - quantizer.signed) - 1 and (int(quantizer.codes(torch.full((1,), -1e9))) == 0) != quantizer.signed
