"""Networks without their weights: a 7B Llama and a 2.7B Phi are analysed on the meta device, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.bench.big_models import MODES, NETS, WANTED_BYTES, WANTED_OF_70B, WIDTHS, analysed
from geta_nb.errors import InputError
from geta_nb.qadg import analysis

STREAM = {"llama": [4096], "phi": []}
"""The residual width: behind root-mean-square norms it may go, behind layer norms not."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", NETS)
def test_a_model_without_weights_has_groups_families_and_a_preview_and_cannot_be_cut(net: str, mode: str):
    """By hand: the residual width, and in each layer 32 whole heads and every unit of the feed-forward width may go."""
    geta = analysed(net, mode, 1)
    assert [len(family.groups) for family in geta.families] == [*STREAM[net], 32, WIDTHS[net]]
    assert len(geta.groups) == sum([*STREAM[net], 32, WIDTHS[net]])
    head = geta.families[len(STREAM[net])].groups[0]
    assert {len(part.indices) for part in head.producers} == {4096 // 32 if net == "llama" else 2560 // 32}
    preview = geta.preview(gt.Budget(group_sparsity=0.5))
    assert preview.parameters < preview.dense.parameters == sum(p.numel() for p in geta.model.parameters()) - quantizer_numbers(geta)
    assert 0 < preview.relative_bops < 1
    with pytest.raises(InputError, match=r"(?s)no values.*(q_proj|embed_tokens)\.weight.*load the weights first"):
        geta.construct_subnet()


def quantizer_numbers(geta: gt.GETA) -> int:
    """Parameters that the quantizers brought along: three each."""
    quantizers = geta.quantizers
    return 0 if quantizers is None else 3 * (len(quantizers.weights) + len(quantizers.activations))


def test_everything_about_a_model_without_weights_shows_itself():
    geta = analysed("llama", "both", 1, device="cpu")  # real token ids, too
    numbers = (geta.quantizers, next(iter(geta.quantizers.weights.values())))
    found = (geta, geta.groups, geta.families[0], geta.groups[0], geta.protected, geta.qadg, geta.trace, geta.preview(gt.Budget()))
    for shown in (*found, *numbers):
        bundle = shown._repr_mimebundle_()
        assert bundle["text/plain"] and bundle["text/html"], type(shown).__name__
    assert "no values" in geta._repr_mimebundle_()["text/html"]


def test_a_display_builds_as_many_groups_as_it_shows(monkeypatch: pytest.MonkeyPatch):
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(8, 20_000), nn.ReLU(), nn.Linear(20_000, 8))
    geta, built = gt.GETA(net, torch.zeros(2, 8, device="meta")), []
    build = type(geta.groups)._build
    monkeypatch.setattr(type(geta.groups), "_build", lambda self, index: built.append(index) or build(self, index))
    for shown in (geta, geta.groups, geta.families[0], geta.groups[7]):
        shown._repr_mimebundle_()
    assert "19,600 more" in geta.families[0]._repr_mimebundle_()["text/html"]
    assert len(built) < 2_000


def deep(layers: int, width: int = 1024) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(*[part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())])


def bytes_a_label(layers: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Most memory in use while labels and groups are found, by label."""
    facts: list[float] = []
    label, find = analysis.propagate, analysis.find_groups

    def propagate(*args: Any, **kwargs: Any) -> Any:
        tracemalloc.start()
        try:
            state = label(*args, **kwargs)
            find(state)
            facts.append(tracemalloc.get_traced_memory()[1] / state.space.size)
        finally:
            tracemalloc.stop()
        return state

    with monkeypatch.context() as patch:
        patch.setattr(analysis, "propagate", propagate)
        gt.GETA(deep(layers), torch.zeros(2, 1024, device="meta"), quantize=None)
    return facts[0]


def test_memory_of_labels_and_groups_goes_with_the_labels(monkeypatch: pytest.MonkeyPatch):
    """A label is a number of 8 bytes, once; its class, its group, by what it is fixed and with what it is united come on top.

    60 to 65 bytes in all; 103 where unions were wide and held twice, causes three times, and zeros written out.
    """
    small, large = bytes_a_label(8, monkeypatch), bytes_a_label(16, monkeypatch)
    assert large < 1.05 * small < 1.05 * 75


def test_a_long_chain_of_operators_is_no_deep_recursion():
    """Thirty layers of Phi were more than Python's stack: what a network is made of is found in order, not by asking back."""
    net = nn.Sequential(*[module for _ in range(400) for module in (nn.Linear(2, 2), nn.Tanh(), nn.Tanh())])
    assert len(gt.GETA(net, torch.rand(2, 2), quantize=None).cost.operators) == 400


SCRIPT = r"""
import gc, json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import transformers
import geta_nb as gt
from geta_nb.bench.big_models import analysed, peak_bytes
def timed(mode, layers):
    start = time.process_time()
    geta = analysed(sys.argv[1], mode, layers)
    families = [len(family.groups) for family in geta.families]
    return families, geta.preview(gt.Budget(group_sparsity=0.5)).relative_bops, time.process_time() - start
timed("both", 1)  # what torch does once is not counted
found = {}
layers = int(sys.argv[2])
for mode in sys.argv[3:]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    small, (families, share, whole) = timed(mode, layers // 8)[-1], timed(mode, layers)
    found[mode] = {"families": families, "share": share, "growth": whole / small, "peak": peak_bytes()}
print(json.dumps(found))
"""


IMPORTS = 0.4e9
"""Bytes of a process that has imported everything and analysed nothing."""


@cache
def whole_models(net: str, layers: int, modes: tuple[str, ...] = tuple(MODES)) -> dict[str, dict[str, Any]]:
    """Analyse a whole network in these modes, in a process of its own; return what was found by mode."""
    env = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), net, str(layers), *modes]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", NETS)
def test_a_whole_model_takes_time_by_its_layers_and_less_than_1500_megabytes(net: str, mode: str):
    """Memory with all imports, 0.4 GB. The peak is this process's own (VmHWM): `ru_maxrss` would also hold its parent's.

    A quarter of the layers here, in a quarter of the memory beyond the imports. ``make bench-big-models`` measures the whole, and the
    minute that it may take; here eight times the layers are compared with that.
    """
    facts = whole_models(net, 8)[mode]
    assert facts["families"] == STREAM[net] + [32, WIDTHS[net]] * 8
    assert facts["growth"] < 3 * 8  # processor time; what grows with the square of the layers would take 64 times as long
    assert facts["peak"] < IMPORTS + (WANTED_BYTES - IMPORTS) / 4
    assert 0 < facts["share"] < 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_llama_of_70_billion_takes_time_by_its_layers_and_less_than_2500_megabytes():
    """By hand: the residual width; in each layer 8 heads of keys, each with 8 of queries, and 28672 units. A fifth of its 80 layers."""
    facts = whole_models("llama_70b", 16, ("both",))["both"]
    assert facts["families"] == [8192] + [8, 28672] * 16
    assert facts["growth"] < 3 * 8  # eight times the layers
    assert facts["peak"] < IMPORTS + (WANTED_OF_70B[1] - IMPORTS) / 5
    assert 0 < facts["share"] < 1
