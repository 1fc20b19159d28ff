"""The laws on nets whose weights are computed by parametrizations, quantized behind them: known ones, and some that nobody has heard of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ArtifactError
from tests.extent import WHOLE
from tests.zoo import computed_nets, laws
from tests.zoo.catalogue import randomise
from tests.zoo.parametrized_nets import NETS

NEW_FORMS = ("weight_norm", "weight_norm_whole", "spectral_norm", "orthogonal", "orthogonal_cayley")
NAMES = (*NETS, *NEW_FORMS)
FAST = {"low_rank": "weights", "tied": "channel", "map": "both", "reader": "both", "spectral_norm": "channel", "weight_norm": "both"}
"""Nets of the fast tier and their modes."""
KEPT = {"reader": "read elsewhere too: remove the parametrization first"}
"""Nets with a weight that stays as it is, and why."""
MODES = ("weights", "both", "channel")
CASES = [
    pytest.param(name, mode, marks=[] if FAST.get(name) == mode else [pytest.mark.slow])
    for name in NAMES
    for mode in MODES
]


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if name in NETS:
        return randomise(NETS[name]()).double().eval(), torch.randn(4, 6).double()
    return randomise(computed_nets.net(computed_nets.WRAPS[name])).double().eval(), torch.randn(2, 3, 8, 8).double()


def geta_of(name: str, mode: str) -> gt.GETA:
    model, x = built(name)
    return laws.geta_of(model, (x,), mode=mode)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_all_laws_hold_where_weights_are_quantized_behind_what_computes_them(name: str, mode: str, tmp_path: Path) -> None:
    geta = geta_of(name, mode)
    assert geta.quantizers is not None and (set(geta.quantizers.computed) != set()) == (name not in KEPT)
    assert all(KEPT[name] in why for why in geta.quantizers.excluded.values())
    laws.check_partition(geta)
    # what costs a trace more is asked in one of the three modes, of each net another
    whole = WHOLE or MODES.index(mode) == NAMES.index(name) % len(MODES) or FAST.get(name) == mode
    if whole:
        assert laws.slice_sets(geta) == laws.slice_sets(geta_of(name, "plain"))
        laws.check_same_graph(geta)
    for seed, share in enumerate((0.1, 0.5, 1.0) if whole else (0.5,)):
        subnet = laws.check_exact_removal(geta, laws.some_groups(geta, seed, share))
        laws.check_preview(geta, subnet)
        assert not [key for key in subnet.state_dict() if "parametrizations" in key] or name in KEPT
    if whole:
        laws.check_second_compression(geta, subnet)
        laws.check_any_size(geta, laws.some_groups(geta, seed=3, share=0.5), tmp_path / "net")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in NAMES if n not in KEPT])
def test_a_file_has_few_bits_for_each_and_gives_them_back_exactly(name: str, tmp_path: Path) -> None:
    model, x = built(name)
    geta = gt.GETA(model, x, quantize=gt.QuantConfig(initial_bits=4))
    geta.mask(laws.some_groups(geta, seed=0))
    subnet = geta.construct_subnet()
    assert {form.bits for form in subnet.geta_info.formats.values()} == {4}
    computed = [key for key in geta.quantizers.computed if key in subnet.state_dict()]
    assert computed and all(len(subnet.state_dict()[key].unique()) <= 16 for key in computed)
    path = gt.save(subnet, tmp_path / "net")
    loaded = gt.load(path)
    assert loaded.state_dict().keys() == subnet.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in subnet.state_dict().items())
    torch.testing.assert_close(loaded(x), model(x), rtol=1e-9, atol=1e-9)  # the law's own number
    if subnet.geta_info.kind == "native":
        again = gt.load(path, model=built(name)[0])
        torch.testing.assert_close(again(x), model(x), rtol=1e-9, atol=1e-9)
        assert again.state_dict().keys() == subnet.state_dict().keys()


def test_what_was_put_behind_our_quantizer_is_traced_on_and_cut_exactly() -> None:
    model, x = built("gated")
    gt.GETA(model, x)
    nn.utils.parametrize.register_parametrization(model[2], "weight", type(model[2].parametrizations.weight[0])(7).double(), unsafe=True)
    geta = gt.GETA(model, x)
    assert geta.quantizers is not None and "2" in geta.quantizers.taken_over
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0, share=0.5))


def test_a_model_that_a_file_does_not_fit_keeps_its_parametrizations(tmp_path: Path) -> None:
    geta = geta_of("gated", "both")
    geta.mask([9])
    path = gt.save(geta.construct_subnet(), tmp_path / "net")
    other, x = built("symmetric")
    before, state = other(x), {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ArtifactError, match="not one of the dense network"):
        gt.load(path, model=other)
    assert torch.equal(other(x), before) and all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())
    assert len(other.state_dict()) == len(state)


def test_a_weight_that_stays_computed_comes_back_with_its_parametrization(tmp_path: Path) -> None:
    geta = geta_of("reader", "both")
    geta.mask([0, 1])
    path = gt.save(geta.construct_subnet(), tmp_path / "net")
    model, x = built("reader")
    again = gt.load(path, model=model)
    torch.testing.assert_close(again(x), geta.model(x), rtol=1e-9, atol=1e-9)  # the law's own number
    assert nn.utils.parametrize.is_parametrized(again.a) and not nn.utils.parametrize.is_parametrized(again.head)
