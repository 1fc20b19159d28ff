"""What a program may not hold is refused by name, when it is written and when it is read."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from geta_nb.errors import ArtifactError
from geta_nb.graph.program import FUNCTIONS, decode_program, encode_program, operator_problem
from geta_nb.graph.trace import trace_model
from tests.files.nets import assert_same_outputs, by_hand
from tests.graph.programs import OUT, Answer, X, program, rebuilt

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning")
aten = torch.ops.aten


def test_a_random_operator_is_refused_and_named() -> None:
    with pytest.raises(ArtifactError, match=r"aten\.rand_like\.default: it draws random numbers"):
        encode_program(by_hand(lambda graph, x: graph.call_function(aten.rand_like.default, (x,))).graph)


@pytest.mark.parametrize(("rate", "train", "ok"), [(0.5, True, False), (0.5, False, True), (0.0, True, True)])
def test_dropout_is_refused_only_where_it_drops(rate: float, train: bool, ok: bool) -> None:
    module = by_hand(lambda graph, x: graph.call_function(aten.dropout.default, (x, rate, train)))
    if ok:
        assert_same_outputs(module, rebuilt(module), torch.ones(4))
    else:
        with pytest.raises(ArtifactError, match=r"(?s)at random, as in training.*model\.eval\(\)"):
            encode_program(module.graph)


def test_attention_with_dropout_is_refused() -> None:
    call = aten.scaled_dot_product_attention.default
    with pytest.raises(ArtifactError, match="at random"):
        encode_program(by_hand(lambda graph, *qkv: graph.call_function(call, qkv, {"dropout_p": 0.1}), inputs=3).graph)


def test_an_operator_that_writes_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"aten\.add_\.Tensor: it changes its arguments in place"):
        encode_program(by_hand(lambda graph, x: graph.call_function(aten.add_.Tensor, (x, x))).graph)


def test_a_higher_order_operator_is_refused_with_advice() -> None:
    from torch._higher_order_ops.wrap import wrap_with_set_grad_enabled

    with pytest.raises(ArtifactError, match=r"(?s)wrap_with_set_grad_enabled.*inline the region"):
        encode_program(by_hand(lambda graph, x: graph.call_function(wrap_with_set_grad_enabled, (False, x))).graph)


@pytest.mark.parametrize("function", [print, eval, getattr, torch.load, operator.setitem, torch.relu])
def test_any_other_function_is_refused(function: Any) -> None:
    with pytest.raises(ArtifactError, match="not on the list"):
        encode_program(by_hand(lambda graph, x: graph.call_function(function, (x, "a", x))).graph)


@pytest.mark.parametrize("value", [torch.ones(1), 2**63, torch.device("meta"), {1: 2}, object()], ids=lambda v: type(v).__name__)
def test_an_argument_without_a_plain_form_is_refused(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = by_hand(lambda graph, x: graph.call_function(operator.add, (x, 1)))
    monkeypatch.setattr(fx.Node, "args", property(lambda node: (value,)))  # fx itself refuses some of these
    with pytest.raises(ArtifactError, match="no plain form"):
        encode_program(module.graph)


def test_an_input_of_an_own_class_is_refused_and_named() -> None:
    class Takes(nn.Module):
        def forward(self, answer: Answer) -> Tensor:
            return answer.scores * 2

    module = trace_model(Takes(), (Answer(torch.ones(2, 2)),)).module
    with pytest.raises(ArtifactError, match=r"network input.*\n.*\n.*Answer"):
        encode_program(module.graph)


def test_the_whitelist_has_no_operator_that_writes_draws_or_does_io() -> None:
    for name in ("add_.Tensor", "rand.default", "bernoulli.p", "_print.default", "from_file.default", "set_data.default", "copy_.default"):
        packet, overload = name.split(".")
        assert operator_problem(getattr(getattr(aten, packet), overload)) is not None, name
    assert operator_problem(torch.ops.prims.add.default) is not None
    assert all(name.startswith(("operator.", "math.", "torch.sym_")) for name in FUNCTIONS)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "aten.rand.default",
        "aten.add_.Tensor",
        "aten.no_such_thing.default",
        "aten.__class__.x",
        "aten.relu",
        "aten..",
        "operator.attrgetter",
        "torch.load",
        "aten.from_file.default",
        "prims.add.default",
        "aten.relu.__init__",
        "relu",
    ],
)
def test_a_call_outside_the_whitelist_is_refused_on_load(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"unknown here|may not call it"):
        decode_program(program(X, ["call_function", name, [{"n": 0}], {}], OUT))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [X],
        [OUT],
        [X, OUT, X],
        [["call_method", "relu", [], {}], OUT],
        [["placeholder", "x", [1], {}], OUT],
        [["placeholder", "x; import os", [], {}], OUT],
        [["placeholder", "lambda", [], {}], OUT],
        [["get_attr", 'a"].b', [], {}], OUT],
        [["get_attr", "a..b", [], {}], OUT],
        [X, ["call_function", "aten.relu.default", [{"n": 1}], {}], OUT],
        [X, ["call_function", "aten.relu.default", [{"n": -1}], {}], OUT],
        [X, ["call_function", "aten.relu.default", [{"d": "load"}], {}], OUT],
        [X, ["call_function", "aten.relu.default", [{"d": "__class__"}], {}], OUT],
        [X, ["call_function", "aten.relu.default", [{"f": "one"}], {}], OUT],
        [X, ["call_function", "aten.relu.default", [2**70], {}], OUT],
        [X, ["call_function", "aten.relu.default", [1.5], {}], OUT],
        [X, ["call_function", "aten.relu.default", [{"n": 0}], {"a b": 1}], OUT],
        [X, ["call_function", "aten.relu.default", [{"n": 0}], {"class": 1}], OUT],
        [X, ["call_function", ["aten"], [{"n": 0}], {}], OUT],
        ["x"],
        [[]],
    ],
    ids=repr,
)
def test_a_malformed_program_is_refused(rows: list[Any]) -> None:
    with pytest.raises(ArtifactError):
        decode_program(program(*rows))


@pytest.mark.parametrize("data", [None, [], {}, {"nodes": 3}, "nodes"], ids=repr)
def test_json_that_is_no_program_is_refused(data: Any) -> None:
    with pytest.raises(ArtifactError, match="malformed"):
        decode_program(data)


def test_arguments_nested_without_end_are_refused() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ArtifactError, match="nested deeper"):
        decode_program(program(X, ["call_function", "aten.relu.default", deep, {}], OUT))
    with pytest.raises(ArtifactError, match="structure"):
        decode_program(program(X, OUT, signature=["x"], inputs=["tuple", None, [deep]], outputs="*"))


ONE_KEYWORD = ["tuple", None, [["tuple", None, []], ["dict", ["x"], ["*"]]]]


@pytest.mark.parametrize(
    "change",
    [
        {"signature": ["x", "y"]},
        {"signature": ["x): import os; (y"]},
        {"signature": ["x=1"]},
        {"inputs": ["tuple", None, [["tuple", None, []], ["dict", ["'+x"], ["*"]]]]},
        {"inputs": ["tuple", None, ["*", "*"]]},
        {"outputs": ["tuple", None, ["*", "*"]]},
        {"outputs": ["record", [["a"]], ["*"]]},
        {"outputs": ["dict", ["a", "a"], ["*", "*"]]},
        {"outputs": ["object", None, ["*"]]},
        {"outputs": None},
    ],
    ids=repr,
)
def test_a_signature_that_does_not_fit_or_hides_code_is_refused(change: dict[str, Any]) -> None:
    good = {"signature": ["x"], "inputs": ONE_KEYWORD, "outputs": "*"}
    assert decode_program(program(X, OUT, **good)) is not None
    with pytest.raises(ArtifactError):
        decode_program(program(X, OUT, **(good | change)))
