"""Channels that layer norms run over: opened on request, marked as not exact, and everything else stays exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from tests.zoo import laws
from tests.zoo.catalogue import ZOO, randomise


def make(name: str, mode: str = "plain", **options: Any) -> gt.GETA:
    model, args, kwargs = ZOO[name].double()
    geta = gt.GETA(model, args, example_kwargs=kwargs, quantize=laws.MODES[mode], **options)
    geta.calibrate([args])
    return geta


def relative_difference(geta: gt.GETA, chosen: list[int]) -> float:
    with laws.weights_restored(geta.model):
        geta.mask(chosen)
        masked = laws.outputs(geta.model, geta.example_inputs, geta.example_kwargs)
        cut = laws.outputs(geta.construct_subnet(), geta.example_inputs, geta.example_kwargs)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(masked, cut, strict=True))


@pytest.mark.parametrize("name", ["mlp_gelu_norm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2_sdpa", "vit_sdpa"))])
def test_only_what_norms_run_over_is_added_and_the_rest_stays_exact(name: str) -> None:
    exact, geta = make(name), make(name, approximate_norms=True)
    assert all(family.exact for family in exact.families)
    loose = [family for family in geta.families if not family.exact]
    assert len(loose) == 1
    assert len(geta.groups) == len(exact.groups) + len(loose[0].groups)
    laws.check_partition(geta)
    kept = [group.index for group in geta.groups if group.exact]
    assert relative_difference(geta, kept[1::3]) < 1e-9


def normed(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return randomise(nn.Sequential(nn.Linear(6, 12), *between, nn.Linear(12, 4))).double().eval()


def html(shown: Any) -> str:
    return str(shown._repr_mimebundle_()["text/html"])


def test_the_report_and_the_groups_say_what_is_not_exact() -> None:
    geta = make("mlp_gelu_norm", approximate_norms=True)
    group = next(group for group in geta.groups if not group.exact)
    geta.mask([group])
    report = geta.report(geta.construct_subnet())
    facts = report.to_dict()
    assert facts["approximate_groups"] == 1
    assert facts["max_abs_difference"] > 1e-6
    assert "not exact" in html(report)
    assert "not exact" in html(group)
    assert "Not exact" in html(geta.groups)
    assert "Not exact" not in html(make("mlp_gelu_norm").groups)


def test_the_option_survives_a_checkpoint(tmp_path: Any) -> None:
    geta = make("mlp_gelu_norm", approximate_norms=True)
    geta.save_checkpoint(tmp_path / "run.geta")
    model, args, _ = ZOO["mlp_gelu_norm"].double()
    assert len(gt.GETA.resume(tmp_path / "run.geta", model, args).groups) == len(geta.groups)


def test_a_vector_norm_skips_zeros_exactly() -> None:
    class Unit(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.normalize(x, dim=-1)

    geta = gt.GETA(normed(Unit()), torch.randn(5, 6).double(), quantize=None)
    assert len(geta.groups) == 12
    assert relative_difference(geta, [1, 5, 6]) < 1e-12
