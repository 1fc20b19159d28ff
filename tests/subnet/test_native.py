"""Native cutting: nets cut by hand compute what their zeroed originals compute, as modules of their own classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from geta_nb.subnet.native import cut_native
from tests.zoo import nets
from tests.zoo.catalogue import ZOO, randomise


class Cut(NamedTuple):
    """Indices ``keep`` of an axis survive; ``producers`` are zeroed elsewhere in the masked model, ``consumers`` are only cut."""

    keep: list[int]
    producers: list[tuple[str, int]]
    consumers: list[tuple[str, int]] = []


def first(output: object) -> Tensor:
    return next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))


def masked(model: nn.Module, cuts: Iterable[Cut]) -> nn.Module:
    model = deepcopy(model)
    for cut in cuts:
        for name, axis in cut.producers:
            tensor = model.get_parameter(name).data
            gone = [i for i in range(tensor.shape[axis]) if i not in cut.keep]
            tensor.index_fill_(axis, torch.tensor(gone), 0)
    return model


def sliced(model: nn.Module, cuts: Iterable[Cut]) -> dict[str, Tensor]:
    tensors = dict(model.state_dict())
    touched = {}
    for cut in cuts:
        for name, axis in cut.producers + cut.consumers:
            tensors[name] = touched[name] = tensors[name].index_select(axis, torch.tensor(cut.keep))
    return touched


def cut_by_hand(
    model: nn.Module, inputs: tuple[Tensor, ...], cuts: list[Cut], sizes: dict[str, set[tuple[int, int]]], **options: int
) -> tuple[nn.Module | None, Callable[[nn.Module], bool]]:
    model = model.double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad():
        expected = first(masked(model, cuts)(*inputs))

    def check(candidate: nn.Module) -> bool:
        # float64 sums over the same non-zero terms in another order: 1e-16 times the number of terms and layers, well under 1e-9
        with torch.no_grad():
            return torch.allclose(first(candidate(*inputs)), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = cut_native(model, new_tensors=sliced(model, cuts), size_changes=sizes, check=check, **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "the model itself was changed"
    return small, check


def bn(path: str) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    return [(f"{path}.weight", 0), (f"{path}.bias", 0)], [(f"{path}.running_mean", 0), (f"{path}.running_var", 0)]


def assert_leaves_say_their_shape(model: nn.Module) -> None:
    """Each torch layer, built anew from its own repr, has the shapes it has."""
    for module in model.modules():
        if type(module).__module__.startswith("torch.nn") and module._parameters and not list(module.children()):
            again = eval(repr(module), vars(nn))
            assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in module.state_dict().items()}, module


def test_conv_batch_norm_chain_is_cut_and_says_its_new_sizes() -> None:
    net = ZOO["vgg7"].build()
    out, into = bn("1")
    out2, into2 = bn("4")
    cuts = [
        Cut([0, 2, 3, 7, 9], [("0.weight", 0), ("0.bias", 0), *out], [*into, ("3.weight", 1)]),
        Cut([1, 5, 6, 7, 8, 15], [("3.weight", 0), ("3.bias", 0), *out2], [*into2, ("7.weight", 1)]),
    ]
    small, check = cut_by_hand(net, ZOO["vgg7"].inputs(2), cuts, {})
    assert small is not None
    assert check(small)
    assert type(small) is type(net)
    assert (small[3].in_channels, small[3].out_channels, small[4].num_features) == (5, 6, 6)
    assert_leaves_say_their_shape(small)


def test_of_a_square_convolution_only_the_axis_that_was_cut_is_patched() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    small, _ = cut_by_hand(net, (torch.randn(2, 3, 8, 8),), [Cut([1, 4, 6], [("2.weight", 0), ("2.bias", 0)], [("4.weight", 1)])], {})
    assert small is not None
    assert (small[2].in_channels, small[2].out_channels, small[4].in_channels) == (8, 3, 3)


def test_stride_equal_to_an_old_width_stays() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sigmoid(), nn.Conv2d(2, 4, 3, stride=2, padding=2))
    net[0].weight.data[1], net[0].bias.data[1], net[2].weight.data[:, 1] = 0, 0, 0
    cuts = [Cut([0], [("0.weight", 0), ("0.bias", 0)], [("2.weight", 1)])]
    small, _ = cut_by_hand(net, (torch.randn(2, 3, 9, 9),), cuts, {"2": {(2, 2), (2, 1)}})  # integers of the node: stride, padding
    assert small is not None
    assert (small[2].in_channels, small[2].stride, small[2].padding, small[2].kernel_size) == (1, (2, 2), (2, 2), (3, 3))


def test_residual_stream_is_cut_through_blocks() -> None:
    net = ZOO["resnet_basic"].build()
    producers, consumers = (
        [("stem.0.weight", 0)],
        [("layers.0.body.0.weight", 1), ("layers.1.body.0.weight", 1), ("layers.2.body.0.weight", 1)],
    )
    consumers.append(("layers.2.shortcut.0.weight", 1))
    for path in ("stem.1", "layers.0.body.4", "layers.1.body.4"):
        producers += bn(path)[0]
        consumers += bn(path)[1]
    producers += [("layers.0.body.3.weight", 0), ("layers.1.body.3.weight", 0)]
    small, _ = cut_by_hand(net, ZOO["resnet_basic"].inputs(2), [Cut([0, 1, 4, 6, 7], producers, consumers)], {})
    assert small is not None
    assert_leaves_say_their_shape(small)
    assert all(block.stride == old.stride for block, old in zip(small.layers, net.layers, strict=True))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution_gets_its_new_groups(multiplier: int) -> None:
    wide = 6 * multiplier
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, wide, 3, groups=6), nn.ReLU(), nn.Conv2d(wide, 4, 1))
    keep = [0, 2, 5]
    keep_out = [i * multiplier + k for i in keep for k in range(multiplier)]
    cuts = [
        Cut(keep, [("0.weight", 0), ("0.bias", 0)]),
        Cut(keep_out, [("2.weight", 0), ("2.bias", 0)], [("4.weight", 1)]),
    ]
    small, _ = cut_by_hand(net, (torch.randn(2, 3, 8, 8),), cuts, {"2": {(6, 3), (wide, 3 * multiplier)}})
    assert small is not None
    assert (small[2].in_channels, small[2].out_channels, small[2].groups) == (3, 3 * multiplier, 3)
    assert_leaves_say_their_shape(small)


def test_whole_groups_of_a_grouped_convolution_and_a_group_norm_go() -> None:
    net = randomise(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 4, 1))
    )
    keep, keep_out = [0, 1, 4, 5, 6, 7], [i for i in range(16) if i // 4 != 1]
    cuts = [
        Cut(keep, [("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0)]),
        Cut(keep_out, [("3.weight", 0), ("3.bias", 0)], [("5.weight", 1)]),
    ]
    small, _ = cut_by_hand(net, (torch.randn(2, 3, 8, 8),), cuts, {"1": {(4, 3), (8, 6)}, "3": {(4, 3), (8, 6), (16, 12)}})
    assert small is not None
    assert (small[1].num_groups, small[1].num_channels) == (3, 6)
    assert (small[3].in_channels, small[3].out_channels, small[3].groups) == (6, 12, 3)


def heads(
    kept: list[int], size: int, producers: Iterable[str], consumers: list[tuple[str, int]], *, axis: int = 0, biases: bool = True
) -> Cut:
    rows = [head * size + i for head in kept for i in range(size)]
    names = [(f"{path}.weight", axis) for path in producers] + [(f"{path}.bias", 0) for path in producers if biases]
    return Cut(rows, names, consumers)


def test_heads_of_a_custom_attention_are_cut_though_head_count_and_head_size_are_equal() -> None:
    net = ZOO["attention"].build()  # 4 heads of 4
    cuts = [heads([0, 3], 4, "qkv", [("out.weight", 1)])]
    calls = {"": {(4, 2), (4, 4), (16, 8), (5, 5)}}
    small, check = cut_by_hand(net, ZOO["attention"].inputs(2), cuts, calls)
    assert small is not None
    assert check(small)
    assert (small.heads, small.head_dim, small.q.out_features, small.out.in_features) == (2, 4, 8, 8)
    too_few_tries, _ = cut_by_hand(net, ZOO["attention"].inputs(2), cuts, calls, max_tries=1)
    assert too_few_tries is None


@pytest.mark.parametrize("name", ["bert_eager", "bert_sdpa"])
def test_heads_of_bert_are_cut_and_the_shared_configuration_stays(name: str) -> None:
    net = ZOO[name].build()
    cuts, sizes = [], {}
    for layer, kept in enumerate(([0, 2, 3], [1])):
        path = f"bert.encoder.layer.{layer}.attention"
        qkv = [f"{path}.self.{part}" for part in ("query", "key", "value")]
        cuts.append(heads(kept, 8, qkv, [(f"{path}.output.dense.weight", 1)]))
        sizes[f"{path}.self"] = {(4, len(kept)), (8, 8), (7, 7), (32, 8 * len(kept))}
    small, _ = cut_by_hand(net, ZOO[name].inputs(2), cuts, sizes)
    assert small is not None
    attention = small.bert.encoder.layer[1].attention
    assert (attention.self.num_attention_heads, attention.self.all_head_size, attention.self.attention_head_size) == (1, 8, 8)
    assert (attention.output.dense.in_features, attention.output.dense.out_features) == (8, 32)
    assert small.config.num_attention_heads == 4
    assert small.config is attention.self.config


def test_heads_of_gpt2_are_cut_out_of_its_fused_matrix() -> None:
    net = ZOO["gpt2_sdpa"].build()
    cuts, sizes = [], {}
    for layer, kept in enumerate(([0, 2, 3], [0, 1])):
        path, n = f"transformer.h.{layer}.attn", len(kept)
        rows = [part * 32 + head * 8 + i for part in range(3) for head in kept for i in range(8)]
        columns = [head * 8 + i for head in kept for i in range(8)]
        cuts += [Cut(rows, [(f"{path}.c_attn.weight", 1), (f"{path}.c_attn.bias", 0)]), Cut(columns, [], [(f"{path}.c_proj.weight", 0)])]
        sizes[path] = {(32, 8 * n), (4, n), (8, 8), (7, 7)}
        sizes[f"{path}.c_attn"] = {(32, 32), (96, 24 * n), (7, 7)}
        sizes[f"{path}.c_proj"] = {(32, 8 * n), (32, 32), (7, 7)}
    small, _ = cut_by_hand(net, ZOO["gpt2_sdpa"].inputs(2), cuts, sizes)
    assert small is not None
    attention = small.transformer.h[1].attn
    assert (attention.num_heads, attention.split_size, attention.head_dim) == (2, 16, 8)
    assert (attention.c_attn.nx, attention.c_attn.nf, attention.c_proj.nx, attention.c_proj.nf) == (32, 48, 16, 32)
    assert attention.layer_idx == 1


def test_tied_tensors_stay_tied_under_whichever_name_they_are_given() -> None:
    net = ZOO["tied_linear"].build()
    keep = [0, 1, 2, 5, 8]
    rows = [("stem.weight", 0), ("stem.bias", 0), ("a.bias", 0), ("b.bias", 0), ("a.weight", 0), ("a.weight", 1)]
    cuts = [Cut(keep, rows, [("out.weight", 1)])]
    small, _ = cut_by_hand(net, ZOO["tied_linear"].inputs(2), cuts, {})
    assert small is not None
    assert small.a.weight is small.b.weight
    assert (small.b.in_features, small.b.out_features) == (5, 5)


def test_training_mode_hooks_and_requires_grad_are_kept() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).train()
    net[0].weight.requires_grad_(False)
    net[0].register_forward_pre_hook(_double_input)
    cuts = [Cut([0, 3, 4], [("0.weight", 0), ("0.bias", 0)], [("2.weight", 1)])]
    small = cut_native(net, new_tensors=sliced(net, cuts), size_changes={}, check=lambda m: True)
    assert small is not None
    assert small.training
    assert [p.requires_grad for p in small.parameters()] == [False, True, True, True]
    x = torch.randn(3, 4)
    torch.testing.assert_close(small(x), masked(net, cuts)(x))  # float32 defaults: two short sums
    small(x).sum().backward()
    assert small[2].weight.grad.shape == (2, 3)


def _double_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (2 * args[0],)


class Configured(nn.Module):
    """Reads the number of heads from an object that others may share."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"heads": 4}
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.config["heads"], 2).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_size_kept_in_a_shared_object_is_never_written_and_gives_none() -> None:
    net = Configured()
    rows = [part * 8 + head * 2 + i for part in range(3) for head in (0, 2) for i in range(2)]
    columns = [0, 1, 4, 5]
    cuts = [Cut(rows, [("qkv.weight", 0), ("qkv.bias", 0)]), Cut(columns, [], [("out.weight", 1)])]
    small, _ = cut_by_hand(net, (torch.randn(2, 5, 8),), cuts, {"": {(4, 2), (2, 2), (3, 3)}})
    assert small is None
    assert net.config == {"heads": 4}


def test_fused_attention_that_cannot_lose_a_head_gives_none() -> None:
    net = nn.MultiheadAttention(16, 4, batch_first=True)  # its kernel wants the input's width in q, k and v
    rows = [part * 16 + i for part in range(3) for i in range(8)]
    cuts = [Cut(rows, [("in_proj_weight", 0), ("in_proj_bias", 0)]), Cut(list(range(8)), [], [("out_proj.weight", 1)])]
    x = torch.randn(2, 5, 16)
    small, _ = cut_by_hand(net, (x, x, x), cuts, {"": {(4, 2), (4, 4), (16, 8), (16, 16), (48, 24)}})
    assert small is None


def test_tensor_without_a_home_and_a_model_that_cannot_be_copied_give_none() -> None:
    net = nn.Linear(4, 2)
    assert cut_native(net, new_tensors={"lifted": torch.ones(2)}, size_changes={}, check=lambda m: True) is None
    net.held = (x for x in range(3))
    assert cut_native(net, new_tensors={}, size_changes={}, check=lambda m: True) is None


def test_check_is_called_at_most_max_tries_times_and_the_random_state_is_untouched() -> None:
    net = nets.Attention(16, 4)
    state, calls = torch.get_rng_state(), []
    result = cut_native(
        net, new_tensors={}, size_changes={"": {(4, 1), (4, 2), (4, 3), (4, 4)}}, check=lambda m: bool(calls.append(m)), max_tries=7
    )
    assert result is None
    assert len(calls) == 7
    assert torch.equal(torch.get_rng_state(), state)


def test_each_try_starts_from_the_original_attributes() -> None:
    net, seen = nets.Attention(16, 4), []
    cut_native(net, new_tensors={}, size_changes={"": {(4, 2), (4, 4)}}, check=lambda m: bool(seen.append((m.heads, m.head_dim))))
    assert sorted(seen) == [(2, 2), (2, 4), (4, 2), (4, 4)]
    assert [sum(size != 4 for size in sizes) for sizes in seen] == [0, 1, 1, 2], "fewest changes first"
