"""What a budget means, whom its exceptions name, and what is refused."""

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geta_nb.budget import Budget, LayerBudget, matches
from geta_nb.errors import BitWidthError, BudgetError


def test_half_of_the_groups_is_the_default_unless_a_target_is_given():
    assert Budget().group_sparsity == 0.5
    assert Budget(relative_bops=0.03).group_sparsity is None
    assert Budget(relative_bops=0.03).target == ("relative_bops", 0.03)
    assert Budget(size_bytes=20_000).target == ("size_bytes", 20_000.0)
    assert Budget(0.3).target is None


@given(st.floats(0, 1), st.integers(0, 10_000))
def test_k_rounds_half_up(sparsity, n):
    assert Budget(sparsity).n_redundant(n) == math.floor(sparsity * n + 0.5)


@pytest.mark.parametrize("targets", [{"group_sparsity": 0.5, "relative_bops": 0.1}, {"relative_bops": 0.1, "size_bytes": 9}])
def test_two_targets_are_refused(targets):
    with pytest.raises(BudgetError, match="only one of the targets"):
        Budget(**targets)


@pytest.mark.parametrize(
    "bad",
    [{"group_sparsity": -0.1}, {"group_sparsity": 1.01}, {"group_sparsity": math.nan}, {"group_sparsity": "half"},
     {"relative_bops": 0}, {"relative_bops": 2}, {"size_bytes": 0}, {"size_bytes": math.inf}, {"round_to": 0},
     {"round_to": 1.5}, {"exceptions": {"a": 3}}, {"exceptions": [1]}],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(bad):
    with pytest.raises(BudgetError, match=next(iter(bad)).rstrip("s")):
        Budget(**bad)


def test_malformed_bit_ranges_are_refused():
    for build in (Budget, LayerBudget):
        with pytest.raises(BitWidthError, match="bit_range"):
            build(bit_range=(8, 4))
        with pytest.raises(BitWidthError, match="activation_bit_range"):
            build(activation_bit_range=(1, 4))
    with pytest.raises(BudgetError, match="max_sparsity"):
        LayerBudget(max_sparsity=1.5)
    with pytest.raises(BudgetError, match="protect"):
        LayerBudget(protect="yes")


def test_a_pattern_names_whole_paths_and_the_modules_above_them():
    assert matches("c1", "c1.weight")
    assert not matches("c1", "c10.weight")
    assert matches("block.0", "block.0.fc.weight")
    assert not matches("0", "block.0.fc.weight")
    assert matches("encoder.*", "encoder.0.fc")
    assert matches("*.fc", "encoder.0.fc.bias")


def test_later_exceptions_win_field_by_field():
    budget = Budget(
        exceptions={"*": LayerBudget(bit_range=(8, 8), max_sparsity=0.5), "head": LayerBudget(max_sparsity=0.1, protect=True)}
    )
    assert budget.layer("head") == LayerBudget(protect=True, bit_range=(8, 8), max_sparsity=0.1)
    assert budget.layer("body") == LayerBudget(bit_range=(8, 8), max_sparsity=0.5)
    assert budget.weight_bits("head") == (8, 8)
    assert budget.activation_bits("head") == (4, 16)


def test_an_exception_that_matches_nothing_asks_did_you_mean():
    budget = Budget(exceptions={"layer1.conv_1": LayerBudget(protect=True)})
    budget.check_names(["layer1.conv_1.weight"])
    with pytest.raises(BudgetError, match=r"did you mean 'layer1\.conv1'"):
        budget.check_names(["layer1.conv1.weight", "fc.weight"])


def test_a_budget_survives_json_and_pickle_and_hashes():
    budget = Budget(relative_bops=0.1, round_to=8, exceptions={"a.*": LayerBudget(bit_range=(8, 8))})
    assert Budget.from_dict(json.loads(json.dumps(budget.to_dict()))) == budget
    assert pickle.loads(pickle.dumps(budget)) == budget
    assert hash(Budget()) == hash(Budget())


def test_the_exceptions_of_a_budget_are_its_own():
    given_dict = {"a": LayerBudget(protect=True)}
    budget = Budget(exceptions=given_dict)
    given_dict.clear()
    assert "a" in budget.exceptions
