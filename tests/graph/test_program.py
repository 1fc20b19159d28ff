"""A graph survives JSON exactly: arguments, sizes, containers and signatures come back as they were."""

from __future__ import annotations

import copy
import io
import math
import operator
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from geta_nb.graph.records import Record
from geta_nb.graph.trace import trace_model
from tests.files.nets import assert_same_outputs, by_hand
from tests.graph.programs import Answer, from_layer, rebuilt, through_json
from tests.zoo.catalogue import ZOO

aten = torch.ops.aten
pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning")
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


