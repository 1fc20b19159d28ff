"""Laws of the zoo itself: every net builds, is deterministic, runs in float64, and its ATen trace computes the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.zoo.cases import case_of
from tests.zoo.catalogue import CORE, SIBLINGS, TESTED, ZOO
from tests.zoo.random_nets import Random, example_input, random_conv_nets, random_mlps

pytestmark = [
    # torch 2.13's own copy of a pytree spec inside run_decompositions
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    # nn.LSTM keeps its weights in a plain list too, and export swaps them there for a moment
    pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning"),
]


def test_a_net_that_is_left_to_make_zoo_has_a_relation_that_is_not() -> None:
    assert {*SIBLINGS} | {*SIBLINGS.values()} <= {*ZOO} and not {*SIBLINGS} & {*SIBLINGS.values(), *CORE}


NAMES = [pytest.param(name, marks=[] if name in CORE else [pytest.mark.slow]) for name in TESTED]


def tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", NAMES)
def test_net_traces_to_an_aten_graph_with_the_same_outputs(name: str) -> None:
    geta = case_of(name).plain  # its trace: torch's own program is not enough, it lays out views as another attention kernel would
    model, args, kwargs, trace = geta.model, geta.example_inputs, geta.example_kwargs, geta.trace
    expected, got = tensors(model(*args, **kwargs)), tensors(trace.module(*args, **kwargs))
    assert len(expected) == len(got) > 0
    # the same float64 operators, at most fused otherwise: a few thousand roundings of 1e-16
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_net_is_the_same_at_every_build_and_each_parameter_matters(name: str) -> None:
    model, args, kwargs = ZOO[name].double()
    again = ZOO[name].double()[0]
    for (key, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    for key, p in model.named_parameters():
        assert p.ndim == 0 or p.numel() < 2 or p.detach().std() > 0, f"{key} is constant"
    assert not model.training
    assert all(out.isfinite().all() for out in tensors(model(*args, **kwargs)))


@settings(max_examples=25, deadline=None)
@given(st.one_of(random_conv_nets(), random_mlps()))
def test_random_net_runs_and_is_built_again_by_its_repr(net: Random) -> None:
    x = example_input(net)
    out = net(x)
    assert len(out) == 2
    assert out.isfinite().all()
    torch.testing.assert_close(eval(repr(net), {"Random": Random})(x), out, rtol=0, atol=0)  # the same operators on the same numbers
