"""Claims about how the quantizer's gradients are computed: in blocks, compiled or at once, they are the same sums."""

from __future__ import annotations

import pytest
import torch

from geta_nb.errors import GetaWarning
from geta_nb.quantizers import gradients as quant_gradients
from geta_nb.quantizers.fake_quant import codes, fake_quantize, fake_quantize_aten, step_size
from geta_nb.quantizers.gradients import BLOCK, NARROW, Codes, gradients

LAYOUTS = {
    "rows": lambda: torch.randn(5, BLOCK // 2),
    "channels_last": lambda: torch.randn(4, 6, 64, 65).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(300, 301).T,
    "with gaps": lambda: torch.randn(300, 400)[:, :301],
    "half": lambda: torch.randn(3, BLOCK).bfloat16(),
}


def numbers(x, uniform):
    return [torch.tensor(v, dtype=quant_gradients.compute_dtype(x)) for v in (0.02, 1.1, 1.0 if uniform else 1.3)]


def check(found, x, g, uniform, *, kind=NARROW, needs=(True,) * 4):
    """Compare with the formulas in float64 on the whole tensor."""
    exact = quant_gradients._formulas(x.double(), g.double(), *numbers(x.double(), uniform), uniform=uniform, kind=kind, needs=needs)
    size = g.double().abs().sum()
    for index, (ours, theirs) in enumerate(zip(found, exact, strict=True)):
        assert (ours is not None) == (theirs is not None) == needs[index]
        if index == 0 and ours is not None:
            assert torch.equal(ours.double(), theirs)
        elif ours is not None:
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


KINDS = {"symmetric": Codes(), "one more below": Codes(narrow_range=False), "unsigned": Codes(signed=False)}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_loop_gives_the_same_gradients_whatever_the_kind_of_codes(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    quant_gradients._compiled.cache_clear()
    # as one process may come to want: more than the compiler makes of one function
    some = (False, True, True, False)
    wanted = [(uniform, kind, (True,) * 4) for uniform in (True, False) for kind in KINDS.values()]
    wanted += [(True, kind, some) for kind in KINDS.values()]
    try:
        torch._dynamo.utils.counters.clear()
        for number, (uniform, kind, needs) in enumerate(wanted):
            for layout in LAYOUTS if number == 0 else ("rows",):
                x = LAYOUTS[layout]()
                g = torch.randn(x.shape, dtype=x.dtype)
                with torch.no_grad():
                    options = {"kind": kind, "needs": needs}
                    found = gradients(x, g, numbers(x, uniform), uniform=uniform, compiled=True, **options)
                check(found, x, g, uniform, **options)
        assert quant_gradients._compiled.cache_info().currsize == len(wanted)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= len(wanted)  # none was given up
    finally:
        quant_gradients._compiled.cache_clear()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("shape", [(), (4, 1)], ids=["tensor", "channel"])
@pytest.mark.parametrize(("bits", "t"), [(2, 1.0), (3, 1.0), (3, 0.7), (5.3, 1.6)])
def test_gradients_of_the_numbers_are_those_of_the_formula_with_the_rounding_passed_straight_through(kind, shape, bits, t):
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(4, 300, dtype=torch.float64, generator=generator) for _ in range(2))
    clip = (torch.rand(shape, dtype=torch.float64, generator=generator) + 0.4).requires_grad_()
    exponent = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    step = step_size(bits, clip.detach(), exponent.detach(), signed=kind.signed).requires_grad_()
    magnitude = x.clamp(min=0) if not kind.signed else x.abs()
    # away from 0, whose power has no derivative in t
    bent = magnitude.clamp(min=1e-300).pow(exponent) * (x.sign() if kind.signed else (x > 0))
    top = clip.pow(exponent)
    low = torch.zeros_like(top) if not kind.signed else -top if kind.narrow_range else -(top + step)
    code = torch.maximum(torch.minimum(bent, top), low) / step
    written = (code + (code.round() - code).detach()) * step
    torch.testing.assert_close(fake_quantize(x, step, clip, exponent, **kind._asdict()), written, rtol=0, atol=1e-12)
    torch.testing.assert_close(fake_quantize_aten(x, step, clip, exponent, kind), written, rtol=0, atol=1e-12)
    expected = torch.autograd.grad((written * g).sum(), (step, clip, exponent))
    y = x.requires_grad_()
    found = torch.autograd.grad((fake_quantize(y, step, clip, exponent, **kind._asdict()) * g).sum(), (y, step, clip, exponent))
    torch.testing.assert_close(found[1:], expected)
    inside = (bent >= low) & (bent <= top)
    if not kind.signed:
        inside &= x >= 0
    assert torch.equal(found[0], g * inside)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_codes_of_a_width_are_used_and_no_others(kind):
    bits, x = 3, torch.linspace(-9, 9, 1001)
    clip = torch.tensor(2.0)
    found = codes(x, step_size(bits, clip, torch.ones(()), signed=kind.signed), clip, torch.ones(()), **kind._asdict()).unique().tolist()
    assert found == ([*range(8)] if not kind.signed else [*range(-3 - (not kind.narrow_range), 4)])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_channels_one_after_the_other_give_the_gradients_of_all_at_once(kind):
    x, g = torch.randn(2, 130, 600, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    given = [torch.rand(130, 1, dtype=torch.float64) + 0.1, torch.rand(130, 1, dtype=torch.float64) + 1, torch.tensor(1.3).double()]
    options = {"uniform": False, "kind": kind, "needs": (True,) * 4}
    assert x.numel() > quant_gradients.BLOCK
    with torch.no_grad():
        found = quant_gradients.gradients(x, g, given, **options)
    torch.testing.assert_close(found, quant_gradients._formulas(x, g, *given, **options))
