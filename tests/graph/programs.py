"""What the tests of programs share: graphs through JSON, and programs and networks written by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from geta_nb.graph.program import decode_program, encode_program


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


def program(*rows: list[Any], **signature: Any) -> dict[str, Any]:
    return {"nodes": list(rows), "signature": None, "inputs": None, "outputs": None} | signature


X, OUT = ["placeholder", "x", [], {}], ["output", "output", [{"n": 0}], {}]


@dataclass
class Answer:
    scores: Tensor
    extra: Tensor | None = None


torch.export.register_dataclass(Answer)
