"""A module of the model's own classes must make the products of the cut graph, not its outputs alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import geta_nb as gt
from geta_nb.subnet import candidates
from geta_nb.subnet.candidates import Candidates
from tests.small_nets import ROWS, assert_same, evaluate
from tests.zoo import laws
from tests.zoo.cases import case_of
from tests.zoo.trap_parts import L, Net


def nobody() -> tuple[nn.Module, nn.Module]:
    raise AssertionError("the whole network is looked at where products differ, and only there")


def test_equal_outputs_by_other_products_are_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One head is left of two, and the mixing matrix has one row: in the net's own code, two heads of half the width broadcast over it."""
    geta = case_of("attention_talking_heads").plain
    args, chosen = geta.example_inputs, laws.some_groups(geta, seed=3)
    with laws.weights_restored(geta.model):
        geta.mask(chosen)
        subnet = geta.construct_subnet()
        monkeypatch.setattr(candidates, "_MATRICES", {})
        blind = geta.construct_subnet()
    assert subnet.geta_info.kind == "graph" and blind.geta_info.kind == "native"
    # float64 sums of some ten products, in another order
    assert_same(evaluate(blind, *args), evaluate(subnet, *args), atol=1e-12)
    promised = geta.preview(gt.Budget(group_sparsity=0.0), groups=chosen).macs
    assert laws.geta_of(subnet, args).cost.evaluate().macs == promised < laws.geta_of(blind, args).cost.evaluate().macs


def one_step(s: Net, x: Tensor) -> Tensor:
    return x @ (s.a.weight.mT @ s.b.weight.mT)


def two_steps(s: Net, x: Tensor) -> Tensor:
    return x @ s.a.weight.mT @ s.b.weight.mT


def turned(s: Net, x: Tensor) -> Tensor:
    return (s.b.weight @ (s.a.weight @ x.mT)).mT


@pytest.fixture
def nets() -> Callable[..., nn.Module]:
    parts = {"a": L(6, 8, False), "b": L(8, 3, False)}
    return lambda run: Net(run, parts).double()


def test_products_are_compared_with_those_of_the_graph(nets: Callable[..., nn.Module]) -> None:
    x = ROWS.double()
    like = Candidates(nets(two_steps), None, (x,), {}, nobody)
    assert like.admit(nets(two_steps)), "the same products: nothing more is asked"
    assert like.admit(nets(turned)), "nor where torch has other kernels for them"
    like = Candidates(nets(two_steps), None, (x,), {}, lambda: (nets(two_steps), nets(two_steps)))
    assert not like.admit(nets(one_step))


def test_as_many_products_may_differ_as_did_before_the_cut(nets: Callable[..., nn.Module]) -> None:
    def unread(s: Net, x: Tensor) -> Tensor:
        s.a(x)
        return two_steps(s, x)

    def unread_and_slow(s: Net, x: Tensor) -> Tensor:
        s.a(x)
        return one_step(s, x)

    def unread_twice(s: Net, x: Tensor) -> Tensor:
        s.a(x)
        return unread(s, x)

    x = ROWS.double()
    like = Candidates(nets(two_steps), None, (x,), {}, lambda: (nets(unread), nets(two_steps)))
    assert like.admit(nets(two_steps)) and like.admit(nets(unread))
    assert not like.admit(nets(unread_twice)) and not like.admit(nets(unread_and_slow))


def test_other_outputs_are_no_candidate_whatever_the_products(nets: Callable[..., nn.Module]) -> None:
    like = Candidates(nets(two_steps), None, (ROWS.double(),), {}, nobody)
    assert not like.admit(nets(lambda s, x: 2 * two_steps(s, x)))


def test_attention_is_the_same_product_fused_or_not_and_with_keys_that_serve_several_queries() -> None:
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)

    def grouped(s: Net, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, k, k, is_causal=True, enable_gqa=True)

    def spread(s: Net, x: Tensor) -> Tensor:
        whole = k.repeat_interleave(2, 1)
        return F.scaled_dot_product_attention(x, whole, whole, attn_mask=torch.ones(5, 5, dtype=torch.bool).tril())

    def by_hand(s: Net, x: Tensor) -> Tensor:
        whole = k.repeat_interleave(2, 1)
        scores = (x @ whole.mT / 8**0.5).masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
        return scores.softmax(-1) @ whole

    for run in (grouped, by_hand):
        assert Candidates(Net(spread, {}), None, (q,), {}, nobody).admit(Net(run, {}))


def test_convolutions_of_other_groups_or_kernels_are_other_products() -> None:
    x, parts = torch.randn(2, 4, 6, 6), {"one": nn.Conv2d(4, 8, 3, padding=1), "two": nn.ConvTranspose2d(8, 4, 2, stride=2)}

    def run(s: Net, x: Tensor) -> Tensor:
        return s.two(s.one(x))

    def wider(s: Net, x: Tensor) -> Tensor:  # a ring of zeros around the kernel
        return s.two(F.conv2d(x, F.pad(s.one.weight, (1, 1, 1, 1)), s.one.bias, padding=2))

    like = Candidates(Net(run, parts), None, (x,), {}, lambda: (Net(run, parts), Net(run, parts)))
    assert like.admit(Net(run, parts)) and not like.admit(Net(wider, parts))
    with FlopCounterMode(display=False) as counter:
        Net(run, parts)(x)
    assert 2 * sum(made * times for (made, _), times in like._made.items()) == counter.get_total_flops()


def test_a_branch_that_nobody_reads_does_not_cost_a_network_its_classes() -> None:
    def run(s: Net, x: Tensor) -> Tensor:
        s.aside(x)
        return s.b(F.relu(s.a(x)))

    geta = gt.GETA(Net(run, {"a": L(6, 8), "aside": L(6, 5), "b": L(8, 3)}).eval(), ROWS, quantize=None)
    geta.mask([0, 1])
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native" and subnet.a.out_features == 6 and subnet.aside.out_features == 5
    # float32 sums of eight products
    assert_same(evaluate(subnet, ROWS), evaluate(geta.model, ROWS), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bert_sdpa", "vit_sdpa", "gpt2_sdpa", "llama_sdpa", "t5_eager", "owl_vit", "mixtral", "swin", "lstm", "attention_of_distances"]
)
def test_networks_keep_their_classes(name: str) -> None:
    geta = case_of(name).plain
    for seed, share in ((0, 0.3), (1, 1.0)):
        with laws.weights_restored(geta.model):
            geta.mask(laws.some_groups(geta, seed, share))
            assert geta.construct_subnet().geta_info.kind == "native"
