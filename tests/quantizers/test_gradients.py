"""Claims about how the quantizer's gradients are computed: in blocks, compiled or at once, they are the same sums."""

from __future__ import annotations

import pytest
import torch

from geta_nb.errors import GetaWarning
from geta_nb.quantizers import gradients as quant_gradients
from geta_nb.quantizers.gradients import BLOCK, gradients

LAYOUTS = {
    "rows": lambda: torch.randn(5, BLOCK // 2),
    "channels_last": lambda: torch.randn(4, 6, 64, 65).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(300, 301).T,
    "with gaps": lambda: torch.randn(300, 400)[:, :301],
    "half": lambda: torch.randn(3, BLOCK).bfloat16(),
}


def numbers(x, uniform):
    return [torch.tensor(v, dtype=quant_gradients.compute_dtype(x)) for v in (0.02, 1.1, 1.0 if uniform else 1.3)]


def check(found, x, g, uniform):
    """Compare with the formulas in float64 on the whole tensor."""
    exact = quant_gradients._formulas(x.double(), g.double(), *numbers(x.double(), uniform), uniform=uniform, needs=(True,) * 4)
    assert torch.equal(found[0].double(), exact[0])
    size = g.double().abs().sum()
    for ours, theirs in zip(found[1:], exact[1:], strict=True):
        # a code within float32's rounding of a half may round the other way: few of the terms, each of size |g|
        assert abs(float(ours) - float(theirs)) < 2e-4 * float(size)


@pytest.mark.parametrize("uniform", [True, False], ids=["t = 1", "t"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_add_up_to_the_formulas(layout, uniform):
    x = LAYOUTS[layout]()
    for g in (torch.randn(x.shape, dtype=x.dtype), torch.ones((), dtype=x.dtype).expand(x.shape)):
        with torch.no_grad():
            check(gradients(x, g, numbers(x, uniform), uniform=uniform, needs=(True,) * 4), x, g, uniform)


def test_blocks_compute_only_what_is_needed():
    x = torch.randn(2 * BLOCK)
    with torch.no_grad():
        found = gradients(x, x, numbers(x, True), uniform=True, needs=(False, True, False, False))
    assert [f is None for f in found] == [True, False, True, True]


def test_large_tensors_are_really_cut_into_blocks(monkeypatch):
    seen, formulas = [], quant_gradients._formulas
    monkeypatch.setattr(quant_gradients, "_formulas", lambda x, *a, **k: seen.append(x.numel()) or formulas(x, *a, **k))
    x = torch.randn(3, BLOCK)
    with torch.no_grad():
        gradients(x, x, numbers(x, True), uniform=True, needs=(True,) * 4)
    assert seen == [BLOCK] * 3


def test_without_a_compiler_it_says_so_once_and_computes_the_same(monkeypatch):
    def broken(*_, **__):
        def call(*_):
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    quant_gradients._compiled.cache_clear()
    x = torch.randn(2, BLOCK)
    with torch.no_grad():
        with pytest.warns(GetaWarning, match=r"(?s)nothing is compiled.*no compiler here"):
            found = gradients(x, x, numbers(x, True), uniform=True, needs=(True,) * 4, compiled=True)
        again = gradients(x, x, numbers(x, True), uniform=True, needs=(True,) * 4, compiled=True)
        plain = gradients(x, x, numbers(x, True), uniform=True, needs=(True,) * 4)
    quant_gradients._compiled.cache_clear()
    for a, b, c in zip(found, again, plain, strict=True):
        assert torch.equal(a, c) and torch.equal(b, c)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.parametrize("uniform", [True, False], ids=["t = 1", "t"])
def test_a_compiled_loop_gives_the_same_gradients(uniform, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    quant_gradients._compiled.cache_clear()
    try:
        for layout in LAYOUTS:
            x = LAYOUTS[layout]()
            g = torch.randn(x.shape, dtype=x.dtype)
            with torch.no_grad():
                check(gradients(x, g, numbers(x, uniform), uniform=uniform, needs=(True,) * 4, compiled=True), x, g, uniform)
        assert quant_gradients._compiled.cache_info().currsize == 1
    finally:
        quant_gradients._compiled.cache_clear()
