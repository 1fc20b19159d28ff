"""Networks without their weights: a 7B Llama and a 2.7B Phi are analysed on the meta device, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import InputError

MODES = {"plain": None, "weights": gt.QuantConfig(), "both": gt.QuantConfig(activations=True)}


def llama(layers: int) -> nn.Module:
    """Llama 2 7B, of any depth, on the meta device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers, num_attention_heads=32, vocab_size=32000, use_cache=False
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).eval()


def phi(layers: int) -> nn.Module:
    """Phi 2, 2.7B, of any depth, on the meta device."""
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        hidden_size=2560, intermediate_size=10240, num_hidden_layers=layers, num_attention_heads=32, partial_rotary_factor=0.4,
        vocab_size=51200, use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        return PhiForCausalLM(config).eval()


BUILD = {"llama": llama, "phi": phi}
WIDTH = {"llama": 11008, "phi": 10240}


def analysed(net: str, mode: str, layers: int, *, device: str = "meta") -> gt.GETA:
    return gt.GETA(BUILD[net](layers), torch.zeros(1, 16, dtype=torch.long, device=device), quantize=MODES[mode])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", BUILD)
def test_a_model_without_weights_has_groups_families_and_a_preview_and_cannot_be_cut(net: str, mode: str):
    """By hand: in each layer 32 whole heads and every unit of the feed-forward width may go."""
    geta = analysed(net, mode, 1)
    assert [len(family.groups) for family in geta.families] == [32, WIDTH[net]]
    assert len(geta.groups) == 32 + WIDTH[net]
    head = geta.groups[0]
    assert {len(part.indices) for part in head.producers} == {4096 // 32 if net == "llama" else 2560 // 32}
    preview = geta.preview(gt.Budget(group_sparsity=0.5))
    assert preview.parameters < preview.dense.parameters == sum(p.numel() for p in geta.model.parameters()) - quantizer_numbers(geta)
    assert 0 < preview.relative_bops < 1
    with pytest.raises(InputError, match=r"(?s)no values.*q_proj\.weight.*load the weights first"):
        geta.construct_subnet()


def quantizer_numbers(geta: gt.GETA) -> int:
    """Parameters that the quantizers brought along: three each."""
    quantizers = geta.quantizers
    return 0 if quantizers is None else 3 * (len(quantizers.weights) + len(quantizers.activations))


def test_everything_about_a_model_without_weights_shows_itself():
    geta = analysed("llama", "both", 1, device="cpu")  # real token ids, too
    for shown in (geta, geta.groups, geta.families[0], geta.groups[0], geta.protected, geta.qadg, geta.trace, geta.preview(gt.Budget())):
        bundle = shown._repr_mimebundle_()
        assert bundle["text/plain"] and bundle["text/html"], type(shown).__name__
    assert "no values" in geta._repr_mimebundle_()["text/html"]


def test_a_long_chain_of_operators_is_no_deep_recursion():
    """Thirty layers of Phi were more than Python's stack: what a network is made of is found in order, not by asking back."""
    net = nn.Sequential(*[module for _ in range(400) for module in (nn.Linear(2, 2), nn.Tanh(), nn.Tanh())])
    assert len(gt.GETA(net, torch.rand(2, 2), quantize=None).cost.operators) == 400


SCRIPT = r"""
import json, re, sys, time
import torch
torch.set_num_threads(1)
import transformers
import tests.facade.test_big_models as nets
start = time.process_time()
geta = nets.analysed(sys.argv[1], sys.argv[2], 32)
families = [len(family.groups) for family in geta.families]
share = geta.preview(nets.gt.Budget(group_sparsity=0.5)).relative_bops
seconds = time.process_time() - start
peak = int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(json.dumps({"families": families, "share": share, "seconds": seconds, "peak": peak}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", BUILD)
def test_a_whole_model_takes_less_than_a_minute_and_1500_megabytes(net: str, mode: str):
    """One thread, so its processor time is what it takes on a machine that has a core for it; memory with all imports, 0.4 GB.

    The peak is this process's own (VmHWM): `ru_maxrss` would also hold that of the process which started it.
    """
    env = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), net, mode]
    ran = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True)
    facts: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert facts["families"] == [32, WIDTH[net]] * 32
    assert facts["seconds"] < 60
    assert facts["peak"] < 1.5e9
    assert 0 < facts["share"] < 1
