"""A language model's file that keeps keys and values says token for token what torch says, whatever heads were cut."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ArtifactError, ConfigError, InputError
from geta_nb.latency.decoding import RUNTIMES, Decoder, Generated, generate_in_torch
from geta_nb.onnx import dense_decoder
from geta_nb.onnx.decoder import CachedStep, empty_past

transformers = pytest.importorskip("transformers")
VOCABULARY = 64


def language_model(form: str = "Llama", **options) -> nn.Module:
    given = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
        "use_cache": False,  # else keys and values are outputs of the network, and no head may go
    }  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{form}ForCausalLM")(getattr(transformers, f"{form}Config")(**given, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)  # so that the likeliest token is clearly so
    return model


@pytest.fixture
def prompts() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(1))


def subnet(model: nn.Module, prompts: torch.Tensor, heads: int) -> nn.Module:
    """4 bits, without so many heads of the first layer, one fewer of the second, and without a third of all other groups."""
    geta = gt.GETA(model, prompts[:1], quantize=gt.QuantConfig(initial_bits=4))
    gone = []
    for family in geta.families:
        count = len(family.groups) // 3
        names = {name for name, _, _ in family.groups[0].slices}
        if any(name.endswith("q_proj.weight") for name in names) and not any("embed" in name for name in names):
            count = heads if any(".0." in name for name in names) else heads - 1
        gone += family.groups[:count]
    geta.mask(gone)
    return geta.construct_subnet().eval()


def test_a_step_with_a_past_continues_what_one_call_computes(prompts):
    model = language_model(num_key_value_heads=2)
    step, whole = CachedStep(model), model(prompts).logits.detach()
    with torch.no_grad():
        first, *past = step(prompts[:, :4], empty_past(model, prompts))
        second, *past = step(prompts[:, 4:6], past)
        third, *past = step(prompts[:, 6:], past)
    # other shapes of products: rounding of float32
    torch.testing.assert_close(torch.cat([first, second, third], 1), whole, rtol=1e-4, atol=1e-4)
    assert {tuple(tensor.shape) for tensor in past} == {(2, 2, 7, 8)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "options", "heads"),
    [("Llama", {"num_key_value_heads": 4}, 2), ("Llama", {"num_key_value_heads": 2}, 1), ("Phi", {}, 3)],
    ids=["llama", "grouped queries", "phi"],
)
def test_both_runtimes_say_what_greedy_generate_says(form, options, heads, prompts, tmp_path):
    cut = subnet(language_model(form, **options), prompts, heads)
    path = gt.export_decoder(cut, tmp_path / "decoder.onnx", prompts[:1])
    shapes = json.loads({item.key: item.value for item in onnx.load(path).metadata_props}["past"])
    assert shapes == [[tensor.shape[1], tensor.shape[3]] for tensor in empty_past(cut, prompts)]
    assert shapes[0][0] != shapes[2][0], "the layers have different numbers of heads"
    told = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = cut.generate(prompts, attention_mask=torch.ones_like(prompts), **told).numpy()
    np.testing.assert_array_equal(generate_in_torch(cut, prompts, 12).tokens, expected)
    for runtime in RUNTIMES:
        decoder = Decoder(path, runtime=runtime)
        np.testing.assert_array_equal(decoder.generate(prompts, 12).tokens, expected, err_msg=runtime)
        one = decoder.generate(prompts[1:, :1], 3)  # another batch, a prompt of one token
        np.testing.assert_array_equal(one.tokens, generate_in_torch(cut, prompts[1:, :1], 3).tokens, err_msg=runtime)
        assert len(one.step_seconds) == 2


@pytest.mark.slow
def test_a_dense_model_is_written_in_the_same_form(prompts, tmp_path):
    model = language_model()
    path = dense_decoder(model, tmp_path / "dense.onnx", prompts)
    names = [item.name for item in onnx.load(path).graph.input]
    assert names == ["input_ids", "past_0", "past_1", "past_2", "past_3"]
    np.testing.assert_array_equal(Decoder(path).generate(prompts, 6).tokens, generate_in_torch(model, prompts, 6).tokens)


def test_speed_is_one_over_the_median_step_and_leaves_the_prompt_out():
    found = Generated(np.zeros((1, 4), dtype=np.int64), 9.0, (0.5, 0.1, 0.25))
    assert found.tokens_per_second == 4
    assert np.isnan(Generated(found.tokens, 9.0, ()).tokens_per_second)


class Bare(nn.Module):
    """A language model that keeps nothing."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*input_ids.shape, VOCABULARY)


def test_what_keeps_no_keys_and_values_is_refused(prompts, tmp_path):
    with pytest.raises(InputError, match=r"(?s)keeps no keys and values.*try: +gt\.export_onnx"):
        dense_decoder(Bare(), tmp_path / "x.onnx", prompts)
    with pytest.raises(ArtifactError, match=r"export_decoder: this module is no subnet"):
        gt.export_decoder(Bare(), tmp_path / "x.onnx", prompts)
    for wrong in (prompts[0], prompts.float(), [[1, 2]], prompts[:, :0]):
        with pytest.raises(InputError, match=r"(?s)export_decoder: input_ids.*int64 \[B, S\]"):
            gt.export_decoder(Bare(), tmp_path / "x.onnx", wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_graph_subnet_is_refused(prompts, tmp_path):
    cut = subnet(language_model(), prompts, 1)
    graph = gt.load(gt.save(cut, tmp_path / "net.safetensors"))
    with pytest.raises(ArtifactError, match=r"(?s)a graph keeps no keys and values.*gt\.load\(path, model=model\)"):
        gt.export_decoder(graph, tmp_path / "x.onnx", prompts)


def test_a_decoder_refuses_other_files_and_other_runtimes(tmp_path):
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match=r"(?s)a file without past keys and values.*gt\.export_decoder"):
        Decoder(tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match="no such runtime"):
        Decoder(tmp_path / "other.onnx", runtime="tensorrt")
