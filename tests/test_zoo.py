"""Laws of the zoo itself: every net builds, is deterministic, runs in float64, and its ATen trace computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from zoo import ZOO


def tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", ZOO)
def test_net_traces_to_an_aten_graph_with_the_same_outputs(name: str) -> None:
    model, args, kwargs = ZOO[name].double()
    program = torch.export.export(model, args, kwargs, strict=False).run_decompositions({})
    expected, got = tensors(model(*args, **kwargs)), tensors(program.module(check_guards=False)(*args, **kwargs))
    assert expected and len(expected) == len(got)
    # the same float64 operators, at most fused otherwise: a few thousand roundings of 1e-16
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ZOO)
def test_net_is_the_same_at_every_build_and_each_parameter_matters(name: str) -> None:
    model, args, kwargs = ZOO[name].double()
    again = ZOO[name].double()[0]
    for (key, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    for key, p in model.named_parameters():
        assert p.ndim == 0 or p.numel() < 2 or p.detach().std() > 0, f"{key} is constant"
    assert not model.training
    assert all(out.isfinite().all() for out in tensors(model(*args, **kwargs)))
