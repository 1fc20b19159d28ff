"""Operators that geta-nb does not know: named with their module and the way to teach them, and pruned once they are taught."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import ConfigError, SubnetError
from geta_nb.groups.operators.axes import drop_axes
from geta_nb.groups.operators.registry import RULES, Call
from tests.zoo import laws


@torch.library.custom_op("getanb_tests::gate", mutates_args=())
def gate(x: Tensor, y: Tensor) -> Tensor:
    return x * torch.tanh(y)


@gate.register_fake
def _(x: Tensor, y: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("getanb_tests::linear", mutates_args=())
def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Not what torch's operator of this name does: it sums over the rows."""
    return x @ weight


@linear.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[1])


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.g, self.b = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.ops.getanb_tests.gate(self.a(x), self.g(x)))


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.w = nn.Linear(6, 12), nn.Parameter(torch.randn(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.getanb_tests.linear(self.a(x).relu(), self.w)


@pytest.fixture(autouse=True)
def _rules() -> Iterator[None]:
    kept = dict(RULES)
    yield
    RULES.clear()
    RULES.update(kept)


def make(model: type[nn.Module]) -> gt.GETA:
    torch.manual_seed(0)
    return gt.GETA(model().double(), torch.randn(4, 6).double(), quantize=None)


@pytest.mark.parametrize(("model", "name"), [(Gated, "getanb_tests::gate"), (Summed, "getanb_tests::linear")])
def test_an_unknown_operator_is_protected_named_with_its_module_and_how_to_teach_it(model: type[nn.Module], name: str) -> None:
    geta = make(model)
    assert len(geta.groups) == 0
    entry = next(entry for entry in geta.protected if entry.operator == name and "register_rule" in entry.reason)
    assert entry.path == "(root)"
    assert f"gt.register_rule({name!r}" in entry.reason


@pytest.mark.parametrize("operator", ["getanb_tests::gate", torch.ops.getanb_tests.gate, torch.ops.getanb_tests.gate.default])
def test_an_elementwise_operator_is_taught_in_one_line(operator: Any) -> None:
    gt.register_rule(operator, "elementwise")
    geta = make(Gated)
    assert len(geta.groups) == 12  # zero times anything is zero, which was measured
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))


def test_a_rule_of_ones_own_is_a_function_of_the_call() -> None:
    @gt.register_rule("getanb_tests::linear")
    def summed(call: Call) -> Any:
        return RULES["matmul"](call)

    geta = make(Summed)
    assert len(geta.groups) == 12
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))


def test_a_rule_with_wrong_shapes_or_one_that_fails_protects_as_before() -> None:
    gt.register_rule("getanb_tests::linear", lambda call: drop_axes(call.args[0], [-1]))
    assert len(make(Summed).groups) == 0
    gt.register_rule("getanb_tests::linear", lambda call: call.args[7])
    assert len(make(Summed).groups) == 0


def test_a_rule_that_lies_ends_in_an_error_not_in_a_wrong_network() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cumsum(self.a(x), 1))

    gt.register_rule("cumsum", lambda call: call.args[0])
    geta = make(Halved)
    assert len(geta.groups) == 12
    geta.mask([3])
    with pytest.raises(SubnetError):
        geta.construct_subnet()


@pytest.mark.parametrize(("operator", "how"), [("", "elementwise"), (7, "elementwise"), ("mylib::gate", "channels"), ("mylib::gate", 3)])
def test_what_is_no_rule_is_refused(operator: Any, how: Any) -> None:
    before = dict(RULES)
    with pytest.raises(ConfigError, match="register_rule"):
        gt.register_rule(operator, how)
    assert before == RULES
