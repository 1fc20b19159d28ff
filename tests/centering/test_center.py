"""Layer norms over residual streams become root-mean-square norms: exactly, in place, by structure, or not at all and with the reason."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.centering import Centered
from geta_nb.centering.norm import CenteredNorm
from geta_nb.errors import PruningSpaceError, RunStateError
from tests.zoo import laws
from tests.zoo.catalogue import ZOO, randomise

WIDTH = 8


class Block(nn.Module):
    """What a transformer adds to its stream, without attention."""

    def __init__(self, norm: nn.Module | None = None, *, gamma: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH) if norm is None else norm
        self.up, self.down = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.gamma = nn.Parameter(torch.ones(WIDTH)) if gamma else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(nn.functional.gelu(self.up(self.norm(x))))
        return x + (y if self.gamma is None else self.gamma * y)


class PreNorm(nn.Module):
    """A table and positions write, norms read."""

    def __init__(self, *blocks: nn.Module, tied: bool = False) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(11, WIDTH), nn.Parameter(torch.randn(1, 5, WIDTH))
        self.blocks, self.norm, self.head = nn.Sequential(*blocks), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 11, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.table(tokens) + self.places)))


TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])


def made(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return randomise(model).double().eval()


def check(model: nn.Module, inputs: Tensor, *, norms: int) -> Centered:
    """Center, compare on the inputs and others, and cut the width exactly."""
    other = inputs.flip(-1) if not inputs.is_floating_point() else inputs * 0.3 + 1
    before = [laws.outputs(model, (x,), {}) for x in (inputs, other)]
    found = gt.center(model, inputs)
    for x, expected in zip((inputs, other), before, strict=True):
        laws.assert_same(expected, laws.outputs(model, (x,), {}), 1e-12)
    assert len(found.norms) == norms
    assert sum(isinstance(module, CenteredNorm) for module in model.modules()) == norms
    return found


def test_a_pre_norm_stream_is_centred_and_its_width_goes_exactly_in_every_mode() -> None:
    for mode in laws.MODES:
        model = made(PreNorm(Block(), Block(gamma=True)))
        assert not any(len(family.groups) == WIDTH for family in laws.geta_of(copy.deepcopy(model), (TOKENS,)).families)
        check(model, TOKENS, norms=3)
        geta = laws.geta_of(model, (TOKENS,), mode=mode)
        width = next(family for family in geta.families if len(family.groups) == WIDTH)
        assert width.exact
        subnet = laws.check_exact_removal(geta, [group.index for group in width.groups][::2])
        assert subnet.geta_info.kind == "native"


def test_parameters_stay_the_same_objects_under_the_same_names() -> None:
    model = made(PreNorm(Block(gamma=True)))
    before = dict(model.named_parameters())
    model.blocks.train()
    gt.center(model, TOKENS)
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(after[name] is before[name] for name in before)
    assert model.blocks[0].norm.training
    assert not model.norm.training
    assert torch.equal(model.blocks[0].gamma.detach(), torch.ones(WIDTH, dtype=torch.float64))


def test_what_writes_has_no_mean_and_what_only_reads_is_untouched() -> None:
    model = made(PreNorm(Block()))
    before = copy.deepcopy(model.state_dict())
    found = gt.center(model, TOKENS)
    assert set(found.writers) == {"table.weight", "places", "blocks.0.down.weight", "blocks.0.down.bias"}
    axes = {"table.weight": 1, "places": 2, "blocks.0.down.weight": 0, "blocks.0.down.bias": 0}
    for name, value in model.state_dict().items():
        if name in axes:
            assert float(value.mean(axes[name]).abs().max()) < 1e-15
            torch.testing.assert_close(value, before[name] - before[name].mean(axes[name], keepdim=True), rtol=0, atol=1e-15)
        else:
            assert torch.equal(value, before[name])


def test_a_tied_table_gets_a_copy_and_its_reader_keeps_the_numbers() -> None:
    model = made(PreNorm(Block(), tied=True))
    kept = model.head.weight.detach().clone()
    found = check(model, TOKENS, norms=2)
    assert found.untied == ("table.weight",)
    assert model.table.weight is not model.head.weight
    assert torch.equal(model.head.weight.detach(), kept)


def test_centering_twice_changes_nothing_more() -> None:
    model = made(PreNorm(Block()))
    gt.center(model, TOKENS)
    before = copy.deepcopy(model.state_dict())
    again = gt.center(model, TOKENS)
    assert again.norms == ()
    assert again.writers == ()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class ByHand(nn.Module):
    """A layer norm as many write it, under other names; ``axis`` 1 is channels first."""

    def __init__(self, axis: int, offset: float = 0.0) -> None:
        super().__init__()
        self.axis, self.offset, self.epsilon = axis, offset, 1e-3
        form = (1, WIDTH, 1, 1) if axis == 1 else (WIDTH,)
        self.g, self.b = nn.Parameter(torch.ones(form)), nn.Parameter(torch.zeros(form))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(self.axis, keepdim=True)
        variance = x.var(self.axis, unbiased=False, keepdim=True)
        return (x - mean) / (variance + self.epsilon).sqrt() * (self.g + self.offset) + self.b


class Plus(nn.Module):
    """``nn.LayerNorm`` with one plus its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (WIDTH,), self.weight + 1, self.bias, 1e-4)


class NoAffine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (WIDTH,))


@pytest.mark.parametrize("norm", [ByHand(-1), Plus(), NoAffine(), nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, eps=0.01)])
def test_norms_are_known_by_what_they_compute(norm: nn.Module) -> None:
    model = made(PreNorm(Block(norm)))
    check(model, TOKENS, norms=2)
    geta = laws.geta_of(model, (TOKENS,))
    width = next(family for family in geta.families if len(family.groups) == WIDTH)
    laws.check_exact_removal(geta, [width.groups[i].index for i in (0, 3, 4)])


class Maps(nn.Module):
    """Channels first: convolutions write, norms over axis 1 read."""

    def __init__(self, norm: type[nn.Module] | Any = lambda: ByHand(1)) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 12, 3, padding=1), nn.Conv2d(12, WIDTH, 1)
        self.gamma, self.norm, self.last, self.head = nn.Parameter(torch.ones(WIDTH, 1, 1)), norm(), norm(), nn.Conv2d(WIDTH, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = nn.functional.avg_pool2d(x + self.gamma * self.down(self.up(self.norm(x)).relu()), 2)
        return self.head(self.last(x))


class Permuted(nn.LayerNorm):
    def __init__(self) -> None:
        super().__init__(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("norm", [lambda: ByHand(1), Permuted])
def test_norms_with_channels_first_are_found_too(norm: Any) -> None:
    model, images = made(Maps(norm)), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    check(model, images, norms=2)
    geta = laws.geta_of(model, (images,))
    width = next(family for family in geta.families if len(family.groups) == WIDTH)
    laws.check_exact_removal(geta, [width.groups[i].index for i in (1, 2, 6)])


class PostNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down, self.norm = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.norm(x + self.down(self.up(x).relu()))


class OutputToo(PreNorm):
    def forward(self, tokens: Tensor) -> Any:
        x = self.blocks(self.table(tokens))
        return self.norm(x), x


class Inlined(PreNorm):
    """A norm in the forward itself: there is no module to put another in the place of."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        return self.head(nn.functional.layer_norm(x, (WIDTH,)) + self.norm(x))


class Shifted(PreNorm):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.table(tokens) + 1))


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (PostNorm(), torch.randn(3, 4), r"linear reads it in up"),
        (OutputToo(Block()), TOKENS, r"an output of the network reads it"),
        (Inlined(), TOKENS, r"layer_norm reads it"),
        (Shifted(), TOKENS, r"the same number is added to every channel"),
        (nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, batch_first=True), torch.randn(2, 3, 8), r"an input of the network \(src\)"),
        (nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)), torch.randn(3, 4), r"written by gelu in 1"),
        (nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), ByHand(1), nn.Conv2d(8, 2, 1)), torch.randn(1, 8, 5, 5), r"each channel for itself"),
    ],
)
def test_a_stream_whose_mean_matters_is_refused_with_the_reason_and_nothing_changes(model: nn.Module, inputs: Tensor, reason: str) -> None:
    before, modules = copy.deepcopy(model.state_dict()), dict(model.named_modules())
    with pytest.raises(PruningSpaceError, match=f"(?s)center: the mean of every stream matters.*{reason}"):
        gt.center(model, inputs)
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_streams_are_judged_one_by_one() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.free, self.held = PreNorm(Block()), PostNorm()

        def forward(self, tokens: Tensor) -> Tensor:
            return self.free(tokens).sum() + self.held(tokens[:, :4].double()).sum()

    found = check(made(Two()), TOKENS, norms=2)
    assert found.norms == ("free.blocks.0.norm", "free.norm")
    assert found.left == {"held.norm": "linear reads it in held.up"}


def test_after_geta_it_is_too_late() -> None:
    model = made(PreNorm(Block()))
    gt.GETA(model, TOKENS)
    with pytest.raises(RunStateError, match=r"(?s)center: the model has quantizers already.*before gt\.GETA"):
        gt.center(model, TOKENS)


def test_an_interruption_gives_the_model_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(PreNorm(Block(gamma=True), tied=True))
    before, modules = copy.deepcopy(model.state_dict()), dict(model.named_modules())

    def stopped(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("geta_nb.centering.apply.are_close", stopped)
    with pytest.raises(KeyboardInterrupt):
        gt.center(model, TOKENS)
    assert dict(model.named_modules()) == modules
    assert model.head.weight is model.table.weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Encoder(nn.Module):
    """Torch's own encoder layers, which have a fused kernel that knows layer norms alone."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, norm_first=True, batch_first=True, dropout=0.0)
        self.embed, self.body = nn.Linear(4, WIDTH), nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x)))


def test_torchs_fused_encoder_layer_does_not_take_it_for_a_layer_norm() -> None:
    model, x = made(Encoder()), torch.randn(2, 5, 4, dtype=torch.float64)
    check(model, x, norms=5)
    with torch.no_grad():
        model.embed.bias += 1.0  # now the stream has a mean, which a layer norm would take out
        outputs = []
        for fast in (True, False):
            with laws.fast_paths(fast):
                outputs.append(model(x))
    laws.assert_same(outputs[:1], outputs[1:], 1e-12)  # attention has a fused form of its own, in another order of summation
    with torch.no_grad():
        model.embed.bias -= 1.0
    geta = laws.geta_of(model, (x,))
    width = max(geta.families, key=lambda family: len({part.parameter for part in family.groups[0].slices}))
    laws.check_exact_removal(geta, [group.index for group in width.groups][::2])


def test_a_centred_network_is_saved_copied_and_loaded_into_one_that_is_centred_too(tmp_path: Any) -> None:
    model = made(PreNorm(Block(), tied=True))
    gt.center(model, TOKENS)
    geta = laws.geta_of(model, (TOKENS,), mode="weights")
    width = next(family for family in geta.families if len(family.groups) == WIDTH)
    geta.mask(list(width.groups)[:3])
    subnet = geta.construct_subnet()
    expected = laws.outputs(subnet, (TOKENS,), {})
    laws.assert_same(expected, laws.outputs(copy.deepcopy(subnet), (TOKENS,), {}), 0)
    laws.assert_same(expected, laws.outputs(pickle.loads(pickle.dumps(subnet)), (TOKENS,), {}), 0)
    path = gt.save(subnet, tmp_path / "net.safetensors")
    laws.assert_same(expected, laws.outputs(gt.load(path), (TOKENS,), {}), 1e-12)
    fresh = made(PreNorm(Block(), tied=True))
    gt.center(fresh, TOKENS)
    loaded = gt.load(path, model=fresh)
    laws.assert_same(expected, laws.outputs(loaded, (TOKENS,), {}), 1e-12)
    assert loaded.norm.eps == subnet.norm.eps != 1e-5


def test_hooks_of_a_norm_stay() -> None:
    model, seen = made(PreNorm(Block())), []
    model.norm.register_forward_hook(lambda module, args, out: seen.append(type(module)))
    gt.center(model, TOKENS)
    seen.clear()
    model(TOKENS)
    assert seen == [CenteredNorm]


ALL = {
    "vit_sdpa", "gpt2_eager", "phi_sdpa", "gpt_neox", "gptj", "gpt_neo", "opt", "falcon_new", "mpt", "nemotron", "deit", "beit", "dinov2",
    "blenderbot", "yolos",
}  # fmt: skip
SOME = {"swin", "whisper", "clip", "segformer", "siglip", "electra"}
NONE = {"bert_sdpa", "roberta", "bart", "marian", "convnext", "bloom", "detr"}


QUICK = {"vit_sdpa", "bert_sdpa"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in sorted(ALL | SOME | NONE)]
)
def test_networks_of_the_zoo_compute_what_they_computed(name: str) -> None:
    model, args, kwargs = ZOO[name].double()
    before = laws.outputs(model, args, kwargs)
    if name in NONE:
        with pytest.raises(PruningSpaceError, match="the mean of every stream matters"):
            gt.center(model, args, example_kwargs=kwargs)
        return
    found = gt.center(model, args, example_kwargs=kwargs)
    assert found.norms
    assert bool(found.left) == (name in SOME)
    laws.assert_same(before, laws.outputs(model, args, kwargs), 1e-9)
    geta = laws.geta_of(model, args, kwargs)
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))
