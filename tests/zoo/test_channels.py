"""The laws where each output channel has a step of its own, and inputs that are never negative have no sign: cut, file, size, cut again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import geta_nb as gt
from geta_nb.files.save_load import own_graph
from geta_nb.subnet.formats import weight_format
from tests.zoo import laws
from tests.zoo.cases import case_of

# depthwise and grouped convolutions, ties, bare parameters, gates; later residual sums, transposed convolutions, attention, Conv1D, LSTM
SOON = ["mlp", "grouped_conv", "depthwise_multiplier", "tied_linear", "tied_autoencoder", "bare_parameter", "squeeze_excite"]
LATER = ["resnet_basic", "unet", "attention", "encoder_layer", "gpt2_sdpa", "tied_language_model", "lstm", "shufflenet", "structured"]


@pytest.fixture(scope="module", params=[*SOON, *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)])
def geta(request: pytest.FixtureRequest) -> gt.GETA:
    """One net with quantized weights and inputs, a step a channel."""
    return case_of(request.param).channel


@pytest.fixture(scope="module")
def subnet(geta: gt.GETA) -> torch.nn.Module:
    """The same without a third of its groups, cut exactly."""
    return laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))


def test_torchs_own_trace_gives_the_same_graph(geta: gt.GETA) -> None:
    assert geta.quantizers is not None and any(q.step_size.numel() > 1 for q in geta.quantizers.weights.values())
    laws.check_same_graph(geta)


def test_each_channel_lies_on_its_own_grid_and_the_report_counts_its_two_numbers(geta: gt.GETA, subnet: torch.nn.Module) -> None:
    net, info = own_graph(subnet, "save")
    assert geta.quantizers is not None
    several = {layer for layer, quantizer in geta.quantizers.weights.items() if quantizer.step_size.numel() > 1}
    parameters = {name: p for name, p in net.named_parameters() if "input_quantizer" not in name}  # tied ones once
    size = 0.0
    for name, parameter in parameters.items():
        form = info.formats.get(name)
        size += parameter.numel() * (parameter.element_size() if form is None else form.bits / 8)
        if form is not None:
            codes = parameter.detach() / form.steps(parameter)
            # float64: codes up to 2**15 in units of 2**-53
            assert (codes - codes.round()).abs().max() < 1e-9 and codes.abs().max() < 2 ** (form.bits - 1)
            by_channel = geta.quantizers.parameter_layer[name] in several
            assert form.axis is None or (by_channel and parameter.shape[form.axis] == form.channels)
            size += 2 * parameter.element_size() * form.channels if by_channel else 0
    assert geta.report(subnet).to_dict()["size_bytes"]["subnet"] == size
    alive = torch.ones(len(geta.groups), dtype=torch.bool).numpy()
    alive[list(info.facts.removed)] = False
    assert geta.cost.size_bytes(alive, geta.bit_widths()) == size
    assert sum(row.size_bytes for row in geta.report(subnet).costs.layers) == size


def test_its_file_gives_it_back_bit_for_bit(geta: gt.GETA, subnet: torch.nn.Module, tmp_path: Path) -> None:
    net, info = own_graph(subnet, "save")
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    assert (loaded.geta_info.formats, loaded.geta_info.activation_formats) == (info.formats, info.activation_formats)
    for mine, theirs in zip(*(laws.outputs(model, geta.example_inputs, geta.example_kwargs) for model in (net, loaded)), strict=True):
        torch.testing.assert_close(theirs, mine, atol=0, rtol=0)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_it_is_compressed_again_from_the_codes_it_has(geta: gt.GETA, subnet: torch.nn.Module, granularity: str, tmp_path: Path) -> None:
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    config = gt.QuantConfig(activations=True, granularity=granularity)
    again = gt.GETA(loaded, geta.example_inputs, example_kwargs=geta.example_kwargs, quantize=config)
    assert again.quantizers is not None
    saved = gt.load(tmp_path / "net")
    for name, form in saved.geta_info.formats.items():
        quantizer, value = again.quantizers.weights[again.quantizers.parameter_layer[name]], saved.get_parameter(name)
        lone = form.channels == value.numel()  # of one element each, which have a range together
        if (granularity == "channel" and not lone) or form.axis is None:
            assert torch.equal(quantizer(value), value) and weight_format(quantizer).bits == form.bits, name
        else:
            assert weight_format(quantizer).bits == 16, "a fresh range"
    laws.check_exact_removal(again, laws.some_groups(again, seed=2))
