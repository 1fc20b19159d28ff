"""Widths that a mean runs over go exactly: root-mean-square norms in every form that people write, and means of anything that is zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.quantizers import parameter_tensors
from geta_nb.subnet.cut import Cut
from geta_nb.subnet.rescaling import in_float64, rescale_norms
from tests.zoo import laws
from tests.zoo.catalogue import ZOO, randomise

EPS = 0.3  # as large as the mean square itself: an epsilon that is not corrected shows in the first digit
CHANNELS = 12


class Written(nn.Module):
    """A norm with its formula given: of the input, the mean of its squares, a scale and epsilon."""

    def __init__(self, formula: Callable[..., Tensor], shape: tuple[int, ...] = (CHANNELS,)) -> None:
        super().__init__()
        self.formula, self.eps = formula, EPS
        self.scale = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, x.pow(2).mean(-1, keepdim=True), self.scale, self.eps)


FORMS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "scale times x times rsqrt": (lambda x, m, w, e: w * (x * torch.rsqrt(m + e)), "native"),
    "divided by sqrt": (lambda x, m, w, e: x / torch.sqrt(m + e) * w, "native"),
    "one plus scale": (lambda x, m, w, e: x * torch.rsqrt(m + e) * (1.0 + w), "native"),
    "cast on the way": (lambda x, m, w, e: (x.to(torch.float32) * torch.rsqrt(m.to(torch.float32) + e)).to(x.dtype) * w, "native"),
    "held above": (lambda x, m, w, e: x * m.clamp(min=e).rsqrt() * w, "native"),
    "epsilon behind the root": (lambda x, m, w, e: x / (m.sqrt() + e) * w, "native"),
    "to a power": (lambda x, m, w, e: x * (m + e).pow(-0.5) * w, "native"),
    "reciprocal": (lambda x, m, w, e: x * (m + e).sqrt().reciprocal() * w, "native"),
    "scale before x": (lambda x, m, w, e: x * (torch.rsqrt(m + e) * w), "native"),
    "no scale": (lambda x, m, w, e: x * torch.rsqrt(m + e), "graph"),
    "scale behind a sum": (lambda x, m, w, e: (x * torch.rsqrt(m + e) + x) * w, "graph"),
    "not a root": (lambda x, m, w, e: x / (1.0 + m), "graph"),
    "another mean beside it": (lambda x, m, w, e: x * torch.rsqrt(m + x.abs().mean(-1, keepdim=True) + e) * w, "graph"),
    "two norms, one scale": (lambda x, m, w, e: x * torch.rsqrt(m + e) * (x.abs().mean(-1, keepdim=True) + e).reciprocal() * w, "graph"),
    "root of the mean of another root": (lambda x, m, w, e: x * torch.rsqrt(x.abs().sqrt().mean(-1, keepdim=True) + e) * w, "native"),
}


def between(*modules: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomise(nn.Sequential(nn.Linear(6, CHANNELS), *modules, nn.Linear(CHANNELS, 4))).double().eval()


def cut(model: nn.Module, chosen: list[int], mode: str = "plain") -> tuple[gt.GETA, nn.Module, float]:
    """Mask and cut; return what came, and how far apart the two are."""
    inputs = torch.randn(3, 5, 6, dtype=torch.float64)
    geta = gt.GETA(model, inputs, quantize=laws.MODES[mode])
    geta.calibrate([inputs])
    assert len(geta.groups) == CHANNELS
    assert all(group.exact for group in geta.groups)
    geta.mask(chosen)
    subnet = geta.construct_subnet()
    other = torch.randn(2, 7, 6, dtype=torch.float64) * 3
    worst = 0.0
    for x in (inputs, other):
        (masked,), (small,) = laws.outputs(model, (x,), {}), laws.outputs(subnet, (x,), {})
        worst = max(worst, float((masked - small).abs().max() / masked.abs().max()))
    return geta, subnet, worst


@pytest.mark.parametrize("form", FORMS)
def test_a_width_behind_a_root_mean_square_goes_exactly_in_every_form(form: str) -> None:
    formula, kind = FORMS[form]
    _, subnet, difference = cut(between(Written(formula)), [0, 3, 4, 9])
    assert difference < 1e-12
    assert subnet.geta_info.kind == kind
    assert subnet.geta_info.facts.max_abs_difference < (1e-6 if "cast" in form else 1e-12)  # outside of the laws float32 rounds


@pytest.mark.parametrize("eps", [None, 1e-5, EPS])
@pytest.mark.parametrize("affine", [True, False])
def test_torchs_own_norm_gets_its_own_epsilon_and_scale(eps: float | None, affine: bool) -> None:
    model = between(nn.RMSNorm(CHANNELS, eps=eps, elementwise_affine=affine))
    given = torch.finfo(torch.float64).eps if eps is None else eps
    _, subnet, difference = cut(model, [1, 2, 5])
    assert difference < 1e-12
    assert subnet.geta_info.kind == ("native" if affine else "graph")
    if affine:
        assert subnet[1].eps == pytest.approx(given * 12 / 9, rel=1e-15)
        assert subnet[1].normalized_shape == (9,)
        assert subnet.geta_info.widths["1"]["eps"] == subnet[1].eps


@pytest.mark.parametrize("mode", ["weights", "both"])
def test_quantized_networks_go_as_exactly(mode: str) -> None:
    for norm in (nn.RMSNorm(CHANNELS, eps=EPS), Written(FORMS["one plus scale"][0]), Written(FORMS["no scale"][0])):
        assert cut(between(norm), [0, 7], mode)[2] < 1e-12


def test_a_subnet_is_cut_again_as_exactly() -> None:
    for norm in (nn.RMSNorm(CHANNELS, eps=EPS), Written(FORMS["no scale"][0])):
        _, subnet, _ = cut(between(norm), [0, 7, 8, 9])
        x = torch.randn(3, 5, 6, dtype=torch.float64)
        again = gt.GETA(subnet, x, quantize=None)
        assert len(again.groups) == 8
        again.mask([1, 2, 3])
        laws.assert_same(laws.outputs(subnet, (x,), {}), laws.outputs(again.construct_subnet(), (x,), {}), 1e-12)


def test_a_scale_that_norms_share_changes_once_and_one_that_others_read_does_not_change() -> None:
    norm = Written(FORMS["divided by sqrt"][0])
    shared = between(norm, norm)
    geta, subnet, difference = cut(shared, [0, 3, 4])
    assert difference < 1e-12
    assert subnet.geta_info.kind == "native"

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Written(FORMS["divided by sqrt"][0])

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm.scale

    model = between(Reads())
    before = copy.deepcopy(model[1].norm.scale.detach())
    geta, subnet, difference = cut(model, [0])
    assert difference < 1e-12
    scale = dict(subnet.named_parameters())["1.norm.scale"]
    torch.testing.assert_close(scale.detach(), before[1:], rtol=0, atol=0)
    assert geta.model is model


class Literal(nn.Module):
    """Epsilon stands in the forward: no attribute could say another one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def test_an_epsilon_that_no_module_can_change_makes_a_graph_even_where_the_example_would_not_show_it() -> None:
    model = between(Literal()).float()
    geta = gt.GETA(model, torch.randn(3, 6), quantize=None)
    geta.mask(range(9))
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "graph"
    with torch.no_grad():
        for layer in (model[0], subnet.get_submodule("0")):
            layer.bias.zero_()
        small = torch.randn(3, 6) * 1e-4  # of the size of the root of epsilon
        torch.testing.assert_close(subnet(small), model(small), rtol=1e-4, atol=1e-6)


class Averages(nn.Module):
    """A mean over channels of a feature map as a gate for all of them."""

    def __init__(self, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False), nn.Conv2d(CHANNELS, 2, 1)
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        mean = y.mean(self.dims, keepdim=self.keepdim)
        return self.b(y * torch.sigmoid(mean if self.keepdim else mean.unsqueeze(1) if self.dims == (1,) else mean[:, None, None, None]))


@pytest.mark.parametrize(("dims", "keepdim"), [((1,), True), ((1,), False), ((1, 2, 3), True), ((1, 2, 3), False)])
def test_a_mean_over_channels_of_a_map_divides_by_what_it_divided_by(dims: tuple[int, ...], keepdim: bool) -> None:
    torch.manual_seed(0)
    model, x = randomise(Averages(dims, keepdim)).double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    geta = gt.GETA(model, x, quantize=None)
    assert len(geta.groups) == CHANNELS
    laws.check_exact_removal(geta, [0, 5, 7])


def test_a_mean_over_channels_that_are_not_zero_keeps_them() -> None:
    """A layer norm written out by hand: x - mean(x) is not zero where x is."""

    def formula(x: Tensor, m: Tensor, w: Tensor, e: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + e) * w

    geta = gt.GETA(between(Written(formula)), torch.randn(3, 5, 6, dtype=torch.float64), quantize=None)
    assert len(geta.groups) == 0
    shifted = between(Written(lambda x, m, w, e: (x + 1) * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + e) * w))
    assert len(gt.GETA(shifted, torch.randn(3, 5, 6, dtype=torch.float64), quantize=None).groups) == 0


def test_a_mean_of_parameters_alone_stays() -> None:
    """Standardised weights: the mean of a row counts its columns, which no mask makes zero."""

    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.w = nn.Linear(6, CHANNELS), nn.Parameter(torch.randn(4, CHANNELS))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(self.a(x), self.w - self.w.mean(1, keepdim=True))

    geta = gt.GETA(randomise(Standardised()).double().eval(), torch.randn(3, 6, dtype=torch.float64), quantize=None)
    assert len(geta.groups) == 0


def test_query_norms_over_the_width_of_a_head_keep_whole_heads_and_those_over_all_heads_lose_them_exactly() -> None:
    class Attention(nn.Module):
        def __init__(self, over: int) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(8, 16, bias=False) for _ in range(4))
            self.o, self.qn, self.kn, self.over = nn.Linear(16, 8), nn.RMSNorm(over, eps=EPS), nn.RMSNorm(over, eps=EPS), over

        def forward(self, x: Tensor) -> Tensor:
            def heads(t: Tensor) -> Tensor:
                return t.view(*x.shape[:2], -1, 4).transpose(1, 2)

            def normed(t: Tensor, norm: nn.Module) -> Tensor:
                return heads(norm(t)) if self.over == 16 else norm(heads(t))

            out = nn.functional.scaled_dot_product_attention(normed(self.q(x), self.qn), normed(self.k(x), self.kn), heads(self.v(x)))
            return self.o(out.transpose(1, 2).reshape(*x.shape[:2], -1))

    for over in (4, 16):
        torch.manual_seed(0)
        model = randomise(Attention(over)).double().eval()
        geta = gt.GETA(model, torch.randn(2, 5, 8, dtype=torch.float64), quantize=None)
        assert len(geta.groups) == 4
        laws.check_exact_removal(geta, [1, 3])


def test_bfloat16_inside_is_compared_in_float64() -> None:
    """A network that casts its norm down rounds in another order when it is cut; the last word is float64 all the way."""

    def formula(x: Tensor, m: Tensor, w: Tensor, e: float) -> Tensor:
        y = x.to(torch.bfloat16)
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + e)).to(x.dtype) * w

    _, subnet, difference = cut(between(Written(formula)), [0, 3, 4])
    assert difference < 1e-12  # laws.outputs lifts what is cast down
    # bfloat16 has eight bits: a product and a root, 2**-8 each, on outputs of about one, and four more through the last layer
    assert subnet.geta_info.facts.max_abs_difference < 8 * 2**-8


@pytest.mark.parametrize("name", ["llama_sdpa", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma3", "mamba"))])
def test_the_residual_width_of_a_language_model_is_an_ordinary_family(name: str) -> None:
    model, args, kwargs = ZOO[name].double()
    geta: Any = gt.GETA(model, args, example_kwargs=kwargs, quantize=None)
    width = next(family for family in geta.families if any("embed" in part.parameter for part in family.groups[0].slices))
    assert len(width.groups) == 32
    assert width.exact
    subnet = laws.check_exact_removal(geta, [group.index for group in width.groups][::2])
    assert subnet.geta_info.kind == "native"


def test_scales_are_compared_as_float64_has_them_where_codes_could_flip() -> None:
    """Of a float32 network the last word is float64 all the way: 6e-8 on a scale would be enough to move an input by a code of two bits."""
    torch.manual_seed(0)
    model = between(*(module for _ in range(4) for module in (nn.RMSNorm(CHANNELS, eps=EPS), nn.Linear(CHANNELS, CHANNELS)))).float()
    x = torch.randn(512, 6)
    geta = gt.GETA(model, x, quantize=gt.QuantConfig(activations=True, initial_bits=3))
    geta.calibrate([x])
    geta.mask(range(0, len(geta.groups), 3))
    analysis = geta._analysis
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native"
    cut = Cut(analysis.state, analysis.table, np.arange(len(geta.groups)) % 3 != 0).filled()
    tensors = {name: parameter.detach().clone() for name, parameter in parameter_tensors(model).items()}
    rescale_norms(cut, analysis.names, tensors)
    assert len(cut.scales) == 4
    wide = in_float64(subnet.geta_info.graph, cut, parameter_tensors(model))
    for name, (factor, offset) in cut.scales.items():
        exact = cut.slice(name, parameter_tensors(model)[name].detach().double() * factor)
        assert offset == 0
        assert torch.equal(wide.get_parameter(name), exact)
        assert not torch.equal(subnet.get_parameter(name).double(), exact)
