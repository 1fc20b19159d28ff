"""Can the laws fail, and only where they should? What a check of the zoo measures with, against torch or a mistake made on purpose."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import geta_nb as gt
from tests.zoo import laws

ODD_CODE = 3.5 * (1 - 1e-12)
"""In steps: goes to 3 in float64; in float32 it is 3.5, which goes to 4."""


def net_between_codes() -> tuple[gt.GETA, torch.Tensor]:
    """Two layers whose first has a weight next to the middle between two of 15 codes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    x = torch.randn(4, 6, dtype=torch.float64)
    geta = gt.GETA(model, (x,), quantize=gt.QuantConfig())
    assert geta.quantizers is not None
    quantizer = geta.quantizers.weights["0"]
    with torch.no_grad():
        quantizer.clip_max.fill_(0.875)
        quantizer.step_size.fill_(0.125)
        model[0].parametrizations.weight.original[2] = 0.125 * ODD_CODE
    return geta, x


def test_one_weight_between_two_codes_is_rounded_once_for_both_sides_of_the_float32_law() -> None:
    geta, x = net_between_codes()
    geta.mask([0])
    masked, subnet = laws.outputs(geta.model, (x,), {}), geta.construct_subnet()
    laws.assert_same(masked, laws.outputs(subnet, (x,), {}), laws.RTOL)
    again = laws.outputs(copy.deepcopy(geta.model).float(), (x.float(),), {})[0]
    assert float((again - masked[0]).abs().max()) > 1e-2, "the masked network itself takes another code in float32"
    laws._check_float32(geta, subnet, masked)


def test_float32_law_sees_a_weight_that_is_wrong_by_a_thousandth() -> None:
    geta, x = net_between_codes()
    geta.mask([0])
    masked, subnet = laws.outputs(geta.model, (x,), {}), geta.construct_subnet()
    for layer in (0, 2):
        wrong = copy.deepcopy(subnet)
        with torch.no_grad():
            wrong[layer].weight += 1e-3 * wrong[layer].weight.abs().max()
        with pytest.raises(AssertionError, match="not close"):
            laws._check_float32(geta, wrong, masked)


def test_a_model_that_is_float32_is_cut_with_the_codes_that_it_has_then() -> None:
    geta, x = net_between_codes()
    geta.model.float()
    geta.mask([0])
    subnet = geta.construct_subnet()
    with torch.no_grad():
        kept = geta.model[0].weight[1:]
        assert torch.equal(subnet[0].weight, kept) and bool((kept[1] == 4 * 0.125).all())
    # sums of eight float32 products
    laws.assert_same(laws.outputs(geta.model, (x.float(),), {}), laws.outputs(subnet, (x.float(),), {}), 1e-6)


@pytest.mark.parametrize("summed", [1, 3])
@pytest.mark.parametrize("equation", ["bhij,hg->bgij", "ij,jk->ik", "bij,bjk->ik", "abc,bd->ad"])
def test_products_of_einsums_are_counted_as_torch_counts_them_or_does_not(equation: str, summed: int) -> None:
    given, output = equation.split("->")
    first, second = given.split(",")
    sizes = {letter: size for size, letter in enumerate(sorted(set(first + second)), 4)}
    sizes |= dict.fromkeys((set(first) & set(second)) - set(output), summed)
    left, right = (torch.randn([sizes[letter] for letter in letters]) for letters in (first, second))
    with FlopCounterMode(display=False) as counter, laws.Einsums(counter) as einsums:
        torch.einsum(equation, left, right)
    wanted = laws.products_of_letters(equation, left.shape, right.shape)
    assert counter.get_total_flops() / 2 + einsums.uncounted == wanted > 0
    assert bool(einsums.uncounted) == (summed == 1)
