"""A graph survives JSON exactly; what a file may not carry or call is refused by name."""

from __future__ import annotations

import copy
import io
import json
import math
import operator
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from geta_nb.errors import ArtifactError
from geta_nb.graph.program import FUNCTIONS, decode_program, encode_program, operator_problem
from geta_nb.graph.records import Record
from geta_nb.graph.trace import trace_model
from geta_nb.subnet.graph_net import PARAMETER, Entry, GraphNet, list_entries
from tests.files.nets import assert_same_outputs, assert_same_tensors, by_hand, conv_net, graph_subnet, image
from tests.zoo.catalogue import ZOO

aten = torch.ops.aten
pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning")


def through_json(graph: fx.Graph) -> fx.Graph:
    return decode_program(json.loads(json.dumps(encode_program(graph), allow_nan=False)))


def rebuilt(module: fx.GraphModule) -> fx.GraphModule:
    return fx.GraphModule(module, through_json(module.graph))


def from_layer(make: Any) -> nn.Module:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            return make(self.linear(x))

    return Wrapped().eval()


SOON = {"resnet_basic", "lstm", "multihead_attention", "many_inputs", "llama_sdpa"}


@pytest.mark.parametrize("name", [name if name in SOON else pytest.param(name, marks=pytest.mark.slow) for name in ZOO])
def test_every_net_of_the_zoo_computes_the_same_after_json(name: str) -> None:
    entry = ZOO[name]
    trace = trace_model(entry.build(), entry.inputs(2), entry.kwargs(2))
    module = GraphNet.of(trace.module)
    again = rebuilt(module)
    for batch in (2, 3) if trace.dynamic_batch else (2,):
        assert_same_outputs(module, again, *entry.inputs(batch), **entry.kwargs(batch))
    assert encode_program(again.graph) == encode_program(module.graph)


SPECIAL = [None, True, 7, -(2**63), 0.1, math.inf, -math.inf, "a'b\"", [1, None], (2, (3,)), slice(None, 2, None), ..., torch.int8]
SPECIAL += [torch.channels_last, torch.strided, torch.device("cpu"), {"k": 1}, 1 + 2j, -0.0]


@pytest.mark.parametrize("value", SPECIAL, ids=repr)
def test_every_kind_of_argument_comes_back_as_it_was(value: Any) -> None:
    module = by_hand(lambda graph, x: graph.call_function(operator.getitem, (x, value)))
    got = next(iter(through_json(module.graph).find_nodes(op="call_function", target=operator.getitem))).args[1]
    assert repr(got) == repr(value)  # the repr tells -0.0 from 0.0 and True from 1
    assert type(got) is type(fx.node.map_aggregate(value, lambda item: item))


def test_nan_comes_back_as_nan() -> None:
    module = by_hand(lambda graph, x: graph.call_function(aten.add.Scalar, (x, math.nan)))
    assert torch.isnan(rebuilt(module)(torch.ones(1))).all()


def test_a_device_becomes_the_cpu() -> None:
    module = by_hand(lambda graph, x: graph.call_function(aten.ones.default, ([2],), {"device": torch.device("cuda", 1)}))
    assert rebuilt(module)(None).device.type == "cpu"


def test_sizes_are_still_computed_from_the_batch() -> None:
    model = from_layer(lambda y: y.reshape(y.shape[0] * 2, -1) * (y.shape[0] // 2 + 3))
    module = trace_model(model, (torch.randn(4, 4),)).module
    assert any(node.target in (operator.mul, operator.floordiv) for node in module.graph.nodes)
    assert_same_outputs(module, rebuilt(module), torch.randn(10, 4))


Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Answer:
    scores: Tensor
    extra: Tensor | None = None


torch.export.register_dataclass(Answer)


@pytest.mark.parametrize(
    "make",
    [
        lambda y: (y, [y + 1, (y * 2,)]),
        lambda y: {"a": y, "b": {"c": (y, None)}},
        lambda y: OrderedDict(z=y, a=y + 1),
        lambda y: [y, None, y + 1],
        lambda y: {3: y},
    ],
)
def test_outputs_in_plain_containers_keep_them(make: Any) -> None:
    module = trace_model(from_layer(make), (torch.randn(2, 4),)).module
    again = rebuilt(module)
    x = torch.randn(3, 4)
    assert_same_outputs(module, again, x)
    shape = torch.utils._pytree.tree_map(lambda leaf: None, module(x))
    assert torch.utils._pytree.tree_map(lambda leaf: None, again(x)) == shape
    assert type(again(x)) is type(module(x))


def test_a_named_tuple_becomes_a_tuple() -> None:
    again = rebuilt(trace_model(from_layer(lambda y: Pair(y, y + 1)), (torch.randn(2, 4),)).module)
    left, right = again(torch.randn(2, 4))
    torch.testing.assert_close(right, left + 1, rtol=0, atol=0)


def test_a_dataclass_becomes_a_record_with_its_fields() -> None:
    out = rebuilt(trace_model(from_layer(Answer), (torch.randn(2, 4),)).module)(torch.randn(2, 4))
    assert isinstance(out, Record)
    assert out.scores is out["scores"] is out[0]
    assert out.extra is None
    with pytest.raises(AttributeError, match="logits"):
        _ = out.logits


def test_absent_outputs_of_a_transformer_are_none_as_in_its_own_class() -> None:
    entry = ZOO["bert_sdpa"]
    module = trace_model(entry.build(), entry.inputs(2), entry.kwargs(2)).module
    own, out = (net(*entry.inputs(2), **entry.kwargs(2)) for net in (module, rebuilt(module)))
    assert torch.equal(out.logits, own.logits)
    assert out.hidden_states is own.hidden_states is None
    assert torch.equal(out[0], own[0])
    assert len(out.to_tuple()) == len(own.to_tuple()) == 1


def test_a_record_copies_and_pickles() -> None:
    record = Record(a=torch.ones(2), b=None)
    buffer = io.BytesIO()
    torch.save(record, buffer)
    buffer.seek(0)
    for again in (copy.deepcopy(record), torch.load(buffer, weights_only=False)):
        assert list(again) == ["a", "b"]
        assert torch.equal(again.a, record.a)


class Keywords(nn.Module):
    def forward(self, x: Tensor, pair: tuple[Tensor, Tensor], *, scale: Tensor, names: dict[str, Tensor]) -> Tensor:
        return (x + pair[0] * pair[1]) * scale + names["b"]


def test_signature_takes_positions_keywords_and_structures_as_before() -> None:
    a, b, c, d, e = (torch.randn(2, 3) for _ in range(5))
    module = trace_model(Keywords(), (a, (b, c)), {"scale": d, "names": {"b": e}}).module
    again = rebuilt(module)
    expected = Keywords()(a, (b, c), scale=d, names={"b": e})
    for got in (again(a, (b, c), scale=d, names={"b": e}), again(x=a, pair=(b, c), names={"b": e}, scale=d), again(a, (b, c), d, {"b": e})):
        assert torch.equal(got, expected)
    with pytest.raises(TypeError, match="scale"):
        again(a, (b, c))


# What may not be saved


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


# What may not be loaded


def program(*rows: list[Any], **signature: Any) -> dict[str, Any]:
    return {"nodes": list(rows), "signature": None, "inputs": None, "outputs": None} | signature


X, OUT = ["placeholder", "x", [], {}], ["output", "output", [{"n": 0}], {}]


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


# A network that is its graph


@pytest.mark.parametrize("name", ["resnet_basic", "tied_linear", "llama_sdpa", "gpt2_sdpa", "lstm", "many_inputs"])
def test_copies_of_a_graph_net_are_whole_and_apart(name: str) -> None:
    entry = ZOO[name]
    net = GraphNet.of(trace_model(entry.build(), entry.inputs(2), entry.kwargs(2)).module)
    net.note = {"kept": [1]}
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    for again in (copy.deepcopy(net), torch.load(buffer, weights_only=False), copy.deepcopy(copy.deepcopy(net))):
        assert_same_tensors(net, again)
        assert_same_outputs(net, again, *entry.inputs(2), **entry.kwargs(2))
        assert again.note == net.note and again.note is not net.note
        with torch.no_grad():
            first = next(again.parameters())
            first.add_(1)
        assert not torch.equal(first, next(net.parameters()))


@pytest.mark.parametrize("name", ["resnet_basic", "bert_sdpa", "gpt2_sdpa", "many_inputs"])
def test_a_graph_net_can_be_exported_again_with_a_dynamic_batch(name: str) -> None:
    entry = ZOO[name]
    net = graph_subnet(entry.build(), entry.inputs(2), entry.kwargs(2))
    again = trace_model(rebuilt_net(net), entry.inputs(2), entry.kwargs(2))
    assert again.dynamic_batch
    assert set(again.module.state_dict()) == set(net.state_dict())
    assert_same_outputs(net, again.module, *entry.inputs(5), **entry.kwargs(5))


def rebuilt_net(net: GraphNet) -> GraphNet:
    return GraphNet.build(through_json(net.graph), list_entries(net), {})


def test_parameters_the_graph_does_not_use_stay() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 3), nn.Linear(2, 2)
            self.register_buffer("scratch", torch.arange(3.0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) + self.scratch

    model = Idle()
    net = GraphNet.of(trace_model(model, (torch.randn(2, 3),)).module, model)
    assert_same_tensors(model, net)
    assert_same_tensors(model, copy.deepcopy(net))


def test_training_moves_the_parameters_of_a_graph_net() -> None:
    net = GraphNet.of(trace_model(conv_net(), (image(),)).module)
    before = copy.deepcopy(net)
    net(image()).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert any(not torch.equal(a, b) for a, b in zip(tree_leaves(before.state_dict()), tree_leaves(net.state_dict()), strict=True))


@pytest.mark.parametrize("name", ["forward", "graph", "a..b", ""])
def test_a_tensor_whose_name_cannot_stand_in_a_module_is_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"name|path"):
        GraphNet.build(fx.Graph(), [Entry(name, PARAMETER, torch.ones(1))], {})


def test_a_graph_that_names_what_is_not_there_is_refused() -> None:
    graph = decode_program(program(["get_attr", "ghost.weight", [], {}], OUT))
    with pytest.raises(ArtifactError, match=r"ghost\.weight"):
        GraphNet.build(graph, [], {})


def test_a_module_that_is_no_activation_quantizer_is_refused() -> None:
    module = by_hand(lambda graph, x: x)
    module.layer = nn.Linear(2, 2)
    with module.graph.inserting_before(module.graph.output_node()):
        module.graph.call_module("layer", (next(iter(module.graph.nodes)),))
    with pytest.raises(ArtifactError, match=r"(?s)no activation quantizer.*at: +layer.*got: +Linear"):
        GraphNet.of(module)
