"""What is measured is what the changed network loses, what is estimated is the formula, and the model stays as it was."""

from __future__ import annotations

import copy
import itertools
import json
import math

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ArtifactError, CalibrationError, ConfigError, GetaError, InputError
from geta_nb.quantizers import Histogram, fitted_clip, largest_code, parameter_tensors
from geta_nb.sensitivity import Losses, real_rises
from geta_nb.sensitivity.measure import _rank_correlation
from geta_nb.sensitivity.probes import Probe, groups_kept
from geta_nb.sensitivity.result import Rise

BOTH = gt.QuantConfig(activations=True)


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, 2), nn.Dropout(0.5), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip


@pytest.fixture(scope="module")
def batches():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    x = torch.randn(96, 1, 8, 8, generator=draw) * 0.5
    x[torch.arange(96), 0, labels * 2] += 1.5
    return [(x[rows], labels[rows]) for rows in torch.arange(96).split(24)]


@pytest.fixture(scope="module")
def trained(batches):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(25):
        for batch in batches:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    return model


def analysed(trained, batches, config=BOTH):
    geta = gt.GETA(copy.deepcopy(trained), batches[0][0][:2], quantize=config)
    geta.calibrate([x for x, _ in batches])
    return geta


@pytest.fixture(scope="module")
def geta(trained, batches):
    return analysed(trained, batches)


@pytest.fixture(scope="module")
def measured(geta, batches):
    return geta.sensitivity(batches, loss, estimate="measured")


def state(geta):
    model = geta.model
    values = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: (p.requires_grad, None if p.grad is None else p.grad.clone()) for name, p in model.named_parameters()}
    return values, flags, [module.training for module in model.modules()]


def assert_same(before, after):
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items()) and before[2] == after[2]
    for name, (wanted, gradient) in before[1].items():
        now = after[1][name]
        assert now[0] == wanted and (gradient is None) == (now[1] is None) and (gradient is None or torch.equal(gradient, now[1]))


@torch.no_grad()
def mean_loss(model, batches):
    model = model.eval()
    return sum(float(loss(model, batch)) for batch in batches) / len(batches)


def test_a_rise_of_bits_is_that_of_the_network_with_that_layer_refitted(geta, measured, batches):
    base = mean_loss(copy.deepcopy(geta.model), batches)
    assert measured.loss == pytest.approx(base, abs=1e-6)
    for layer, by_bits in measured.by_layer.items():
        assert sorted(by_bits) == [2, 3, 4, 5, 6, 8]
        twin = copy.deepcopy(geta.model)
        quantizer = twin[int(layer)].parametrizations.weight[0]
        weight = twin[int(layer)].parametrizations.weight.original
        most = largest_code(3, signed=True)
        with torch.no_grad():
            quantizer.clip_max.copy_(fitted_clip(weight, most, quantizer.clip_max, quantizer.exponent, narrow_range=quantizer.narrow_range))
            quantizer.step_size.copy_(quantizer.clip_max / most)
        assert by_bits[3] == pytest.approx(mean_loss(twin, batches) - base, abs=1e-6)


def test_inputs_are_asked_at_their_own_bits(geta, measured, batches):
    assert set(measured.by_input) == set(geta.activation_bit_widths()) == {"0", "3", "8"}
    assert all(abs(by_bits[8]) < 0.01 for by_bits in measured.by_input.values())
    assert max(by_bits[2] for by_bits in measured.by_input.values()) > 0.05


def test_a_rise_of_groups_is_that_of_the_network_without_the_least_salient(geta, measured, batches):
    base = measured.loss
    for family in geta.families:
        order = measured.order[family.name]
        assert sorted(order) == sorted(group.index for group in family.groups)
        for share, rise in measured.by_family[family.name].items():
            twin = copy.deepcopy(geta)
            twin.mask(order[: len(order) - groups_kept(share, len(order))])
            assert rise == pytest.approx(mean_loss(twin.model, batches) - base, abs=1e-6)


def test_groups_go_in_the_order_of_their_saliency(geta, measured, batches):
    twin = copy.deepcopy(geta).model.eval()
    totals: dict[int, float] = {}
    for batch in batches:
        twin.zero_grad()
        loss(twin, batch).backward()
        for family in geta.families:
            for group in family.groups:
                dot = 0.0
                for name, axis, places in group.producers:
                    p = parameter_tensors(twin)[name]
                    dot += float((p.detach() * p.grad).index_select(axis, torch.tensor(places)).sum())
                totals[group.index] = totals.get(group.index, 0.0) + dot**2
    for order in measured.order.values():
        found = [totals[group] for group in order]
        assert all(a <= b * (1 + 1e-3) + 1e-12 for a, b in itertools.pairwise(found))  # sums in float32


@pytest.mark.parametrize("estimate", ["measured", "gradient"])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_model_is_changed(trained, batches, estimate, training):
    geta = analysed(trained, batches)
    geta.model.train(training)
    geta.model[1].eval()
    geta.model[3].bias.requires_grad_(False)
    loss(geta.model, batches[0]).backward()
    before, drawn = state(geta), torch.get_rng_state()
    geta.sensitivity(batches, loss, bits=(2, 4), kept=(0.5,), estimate=estimate)
    assert_same(before, state(geta))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(q.stand_in is None and q.observer is None for q in geta.quantizers.activations.values())


def test_nothing_is_changed_where_the_loss_fails_in_the_middle(trained, batches):
    geta, calls = analysed(trained, batches), []
    geta.model.train()

    def failing(model, batch):
        calls.append(1)
        if len(calls) > 20:
            raise ValueError("no more")
        return loss(model, batch)

    before = state(geta)
    with pytest.raises(InputError, match=r"the loss fails[\s\S]*batch \d[\s\S]*no more"):
        geta.sensitivity(batches, failing, estimate="measured")
    assert_same(before, state(geta))


def test_the_estimate_is_half_the_mean_square_of_the_products(geta, batches):
    found = geta.sensitivity(batches, loss, estimate="gradient", bits=(2, 3), kept=(0.5,))
    twin = copy.deepcopy(geta).model.eval()
    layer = twin[3].parametrizations.weight
    quantizer, most = layer[0], largest_code(3, signed=True)
    clip = fitted_clip(layer.original, most, quantizer.clip_max.detach(), quantizer.exponent.detach(), narrow_range=quantizer.narrow_range)
    with torch.no_grad():
        other = copy.deepcopy(quantizer)
        other.clip_max.copy_(clip)
        other.step_size.copy_(clip / most)
        change = other(layer.original) - quantizer(layer.original)
    squares = []
    for batch in batches:
        twin.zero_grad()
        loss(twin, batch).backward()
        squares.append(24 * float((change * layer.original.grad).sum()) ** 2)
    assert found.by_layer["3"][3] == pytest.approx(sum(squares) / len(squares) / 2, rel=1e-4)


def test_the_estimate_ranks_as_what_is_measured_and_says_so(geta, measured, batches):
    smaller = [(x[rows], y[rows]) for x, y in batches for rows in torch.arange(24).split(4)]
    found = geta.sensitivity(smaller, loss, estimate="gradient")
    assert found.estimate == "gradient" and found.checked == 24 and set(found.rises) == set(measured.rises)
    # of fifty, chance reaches 0.45 once in a thousand times; six channels and a ruined network are far from second order
    asked = list(measured.rises)
    assert _rank_correlation([found.rises[probe].mean for probe in asked], [measured.rises[probe].mean for probe in asked]) > 0.45
    assert found.rank_correlation is not None and f"rank correlation {found.rank_correlation:.2f}" in repr(found)
    assert all(rise.error is None for rise in found.rises.values())


def test_the_same_call_gives_the_same_numbers_and_dropout_does_not_matter(geta, measured, batches):
    assert geta.sensitivity(batches, loss, estimate="measured") == measured
    assert geta.sensitivity(iter(batches), loss, estimate="measured") == measured


def test_random_numbers_in_the_loss_are_the_same_for_every_probe(geta, batches):
    def noisy(model, batch):
        return loss(model, batch) + torch.rand(())

    found = geta.sensitivity(batches, noisy, estimate="measured", bits=(16,), kept=(1.0,), seed=3)
    assert all(abs(rise.mean) < 1e-3 for rise in found.rises.values())  # of noise up to 1


def test_errors_are_those_of_means_over_batches(geta, measured, batches):
    assert set(measured.errors) == set(measured.rises) and measured.batches == len(batches)
    alone = geta.sensitivity(batches[:1], loss, estimate="measured", bits=(4,), kept=(0.5,))
    assert not alone.errors


@pytest.mark.parametrize("config", [None, gt.QuantConfig()])
def test_what_is_not_quantized_is_not_asked(trained, batches, config):
    found = analysed(trained, batches, config).sensitivity(batches, loss, bits=(4,), kept=(0.5,))
    assert not found.by_input and bool(found.by_layer) == (config is not None) and len(found.by_family) == 2


def test_a_loss_without_gradient_is_measured_with_groups_by_size(trained, batches):
    def errors(model, batch):
        return (model(batch[0]).argmax(1) != batch[1]).float().mean()

    geta = analysed(trained, batches)
    found = geta.sensitivity(batches, errors, bits=(2,), kept=(0.5,))
    assert found.estimate == "measured"
    own = parameter_tensors(geta.model)
    for family in geta.families:
        norms = {
            group.index: sum(float(own[n].detach().index_select(axis, torch.tensor(at)).square().sum()) for n, axis, at in group.producers)
            for group in family.groups
        }
        assert list(found.order[family.name]) == sorted(norms, key=norms.__getitem__)
    with pytest.raises(InputError, match=r"no gradient[\s\S]*estimate=\"measured\""):
        geta.sensitivity(batches, errors, estimate="gradient")


# parts together


@pytest.mark.parametrize("estimate", ["measured", "gradient"])
def test_what_parts_lose_together_is_what_plans_lost_that_were_tried_whole(geta, batches, estimate):
    found = geta.sensitivity(batches, loss, estimate=estimate)
    assert 3 < len(found.link) <= 16
    plain = gt.Sensitivity(**{**vars(found), "link": ()}).front()
    tried = [point for point in plain.points if any(point.rise == total for total, _ in found.link)]
    real = real_rises(geta.groups.table, parameter_tensors(geta.model), geta.quantizers, Losses(geta.model, loss, batches, 0), found, tried)
    most = 0.0
    for point, rise in zip(tried, real, strict=True):
        most = max(most, rise.mean)
        now = next(other for other in found.front().points if other.cost == point.cost)
        assert now.rise == pytest.approx(most, abs=1e-6) and now.bits == point.bits


def test_real_rises_are_those_of_the_network_changed_whole(geta, measured, batches):
    point = measured.front().points[len(measured.front().points) // 2]
    before = state(geta)
    losses = Losses(geta.model, loss, batches, 0)
    rise = real_rises(geta.groups.table, parameter_tensors(geta.model), geta.quantizers, losses, measured, [point])[0]
    assert_same(before, state(geta))
    twin = copy.deepcopy(geta)
    gone = []
    for family, share in point.kept.items():
        order = measured.order[family]
        gone += order[: len(order) - groups_kept(share, len(order))]
    for layer, bits in point.bits.items():
        if bits < 16:
            quantizer, most = twin.quantizers.weights[layer], largest_code(bits, signed=True)
            weight = twin.model[int(layer)].parametrizations.weight.original.detach()
            kind = {"narrow_range": quantizer.narrow_range}
            clip = fitted_clip(weight, most, quantizer.clip_max.detach(), quantizer.exponent.detach(), **kind)
            quantizer.set_range(clip, bits)
    for layer, bits in point.input_bits.items():
        if bits < 16:
            quantizer = twin.quantizers.activations[layer]
            probe = Probe("input", layer, float(bits))
            histogram = Histogram()
            copied = copy.deepcopy(geta)
            for each in copied.quantizers.activations.values():
                each.observer = lambda x: None
            copied.quantizers.activations[layer].observer = histogram
            mean_loss(copied.model, batches)
            quantizer.set_range(histogram.fitted_clip(largest_code(probe.at, signed=quantizer.signed)), bits)
    twin.mask(gone)
    assert rise.mean == pytest.approx(mean_loss(twin.model, batches) - measured.loss, abs=1e-5)


# kept in a file


def test_a_stopped_run_goes_on(trained, batches, tmp_path, monkeypatch):
    geta, path = analysed(trained, batches), tmp_path / "rises.json"
    whole, calls = geta.sensitivity(batches, loss, estimate="measured"), []

    def stopped(model, batch):
        calls.append(1)
        if len(calls) == 100:
            raise KeyboardInterrupt
        return loss(model, batch)

    before = state(geta)
    with pytest.raises(KeyboardInterrupt):
        geta.sensitivity(batches, stopped, estimate="measured", path=path)
    assert_same(before, state(geta))
    done = len(json.loads(path.read_text())["rises"])
    assert 5 < done < len(whole.rises)
    calls.clear()
    assert geta.sensitivity(batches, lambda m, b: calls.append(1) or loss(m, b), estimate="measured", path=path) == whole
    # the loss as it is, gradients, histograms of inputs, what was missing, and up to sixteen plans tried whole
    asked = len(calls) / len(batches) - (3 + len(whole.rises) - done)
    assert len(whole.link) <= asked <= 16
    calls.clear()
    assert geta.sensitivity(batches, lambda m, b: calls.append(1) or loss(m, b), estimate="measured", path=path) == whole
    assert len(calls) == 3 * len(batches)


def test_a_file_of_other_weights_is_refused_and_stays(trained, batches, tmp_path):
    geta, path = analysed(trained, batches), tmp_path / "rises.json"
    geta.sensitivity(batches, loss, bits=(4,), kept=(), path=path)
    text = path.read_text()
    with torch.no_grad():
        geta.model[8].bias.add_(torch.tensor([0.5, 0.0, 0.0]))
    with pytest.raises(InputError, match=r"of other weights"):
        geta.sensitivity(batches, loss, bits=(4,), kept=(), path=path)
    assert path.read_text() == text


def test_saved_and_loaded_it_is_the_same(geta, measured, tmp_path):
    path = measured.save(tmp_path / "s.json")
    assert gt.Sensitivity.load(path) == measured and gt.Sensitivity.load(path, geta).front() == measured.front()
    with pytest.raises(InputError, match=r"know no network[\s\S]*gt\.Sensitivity\.load\(path, geta\)"):
        gt.Sensitivity.load(path).front()
    other = gt.GETA(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    with pytest.raises(InputError, match="of another network"):
        gt.Sensitivity.load(path, other)


def test_a_rise_without_end_is_kept(measured, tmp_path):
    probe = next(iter(measured.rises))
    endless = gt.Sensitivity(**{**vars(measured), "rises": {**measured.rises, probe: Rise(math.inf)}})
    again = gt.Sensitivity.load(endless.save(tmp_path / "s.json"))
    assert again.rises[probe].mean == math.inf and again == endless
    assert measured.front().points[-1].cost <= endless.of(*measured.network).front().points[-1].cost


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', '{"format": "geta-nb sensitivity 1", "rises": [["a", 1]]}'])
def test_a_file_that_is_none_is_an_artifact_error(tmp_path, text):
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"Sensitivity\.load: not a file of ours"):
        gt.Sensitivity.load(path)
    with pytest.raises(ArtifactError):
        gt.Sensitivity.load(tmp_path / "none.json")


# what is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": (1,)}, ConfigError, "bits"), ({"bits": (4.0,)}, ConfigError, "bits"), ({"kept": (0.0,)}, ConfigError, "kept"),
        ({"kept": (1.5,)}, ConfigError, "kept"), ({"bits": (), "kept": ()}, ConfigError, "nothing is asked"),
        ({"estimate": "hessian"}, ConfigError, "no such estimate"), ({"batches": []}, InputError, "no batches"),
        ({"batches": torch.zeros(3)}, InputError, "no batches"), ({"loss": 3}, InputError, "no loss"),
        ({"loss": lambda m, b: m(b[0])}, InputError, "not one number"), ({"loss": lambda m, b: 0.5}, InputError, "not one number"),
        ({"loss": lambda m, b: loss(m, b) * math.nan}, InputError, "not finite as it is"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(geta, batches, options, error, message):
    before = state(geta)
    with pytest.raises(error, match=message):
        geta.sensitivity(options.pop("batches", batches), options.pop("loss", loss), **options)
    assert_same(before, state(geta))


def test_without_calibration_it_says_so(trained, batches):
    geta = gt.GETA(copy.deepcopy(trained), batches[0][0][:2], quantize=BOTH)
    with pytest.raises(CalibrationError, match="calibrate"):
        geta.sensitivity(batches, loss)
    assert issubclass(CalibrationError, GetaError)


def test_probes_are_named_tuples_with_sizes():
    assert Probe("weight", "a", 4.0) == ("weight", "a", 4.0)
