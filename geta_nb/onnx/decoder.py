"""``gt.export_decoder``: a language model's subnet as one ONNX file that keeps keys and values, for generating token after token.

In: a native subnet of a causal LM that follows ``transformers``' protocol (``use_cache``, ``past_key_values``). Out: a file with tokens and
past keys and values as inputs, logits and all keys and values so far as outputs. Each layer has its own number of heads, as it was
cut. The same file reads a whole prompt (a past of length 0) and single tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from geta_nb.errors import ArtifactError, InputError
from geta_nb.files import own_graph
from geta_nb.graph import encode_sizes, eval_mode, on_cpu
from geta_nb.onnx.export import write_graph
from geta_nb.subnet import WeightFormat, input_sizes, whole_graph

PAST, NEW = 5, 3  # lengths of the example; every other one is open
INNER = "net"


class Past:
    """Keys and values so far, with what ``transformers`` asks of a cache: they grow by what is new."""

    is_compileable = False

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add what is new, [B, heads, S, width] each; return all, [B, heads, P + S, width]."""
        both = self.tensors[2 * layer : 2 * layer + 2]
        self.tensors[2 * layer : 2 * layer + 2] = [torch.cat([old, new], dim=-2) for old, new in zip(both, (keys, values), strict=True)]
        return self.tensors[2 * layer], self.tensors[2 * layer + 1]

    def get_seq_length(self, layer: int = 0) -> int:
        """Return how many tokens a layer has seen."""
        return self.tensors[2 * layer].shape[-2]


class CachedStep(nn.Module):
    """One call of a language model: tokens and past in, logits and past out, as plain tensors."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input_ids: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        """Return logits [B, S, V], then keys and values of each layer in turn, [B, heads, P + S, width].

        Args:
            input_ids: the next tokens, [B, S], S >= 1.
            past: keys and values of each layer in turn, [B, heads, P, width], P >= 0.
        """
        before, new = past[0].shape[-2], input_ids.shape[1]
        positions = before + torch.arange(new, device=input_ids.device)
        seen = torch.arange(before + new, device=input_ids.device)
        hidden = torch.where(seen <= positions[:, None], 0.0, torch.finfo(past[0].dtype).min)
        state = Past(past)
        found = self.net(
            input_ids=input_ids, attention_mask=hidden[None, None], position_ids=positions[None], past_key_values=state, use_cache=True
        )
        return (found.logits, *state.tensors)


def empty_past(net: nn.Module, input_ids: Tensor) -> list[Tensor]:
    """Return the keys and values of no token: each [B, heads, 0, width], as wide as the network makes them.

    Raises:
        InputError: a network that keeps none.
    """
    try:
        with eval_mode(net), torch.no_grad():
            layers = net(input_ids=input_ids, use_cache=True).past_key_values.layers
            return [tensor[..., :0, :] for layer in layers for tensor in (layer.keys, layer.values)]
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            "export_decoder: the network keeps no keys and values.", at=type(net).__name__,
            expected="a causal LM of transformers: net(input_ids=ids, use_cache=True).past_key_values.layers", got=str(error)[:200],
            hint="gt.export_onnx(subnet, path, input_ids) writes it without a cache",
        ) from None  # fmt: skip


def export_decoder(subnet: nn.Module, path: str | PathLike[str], input_ids: Tensor) -> Path:
    """Write a language model's subnet as one ONNX file with past keys and values as inputs and outputs.

    Weights are stored as by :func:`export_onnx`. Inputs of the file: ``input_ids`` [B, S] int64, then ``past_0``, ``past_1``, ... (keys and
    values of each layer in turn, [B, heads, P, width]); outputs: ``logits`` [B, S, V] and ``present_0``, ... [B, heads, P + S, width].
    S >= 1 and P >= 0 are open; positions follow from P. ``metadata_props["past"]`` (JSON) is the list of [heads, width].
    ``geta_nb.latency.decoding.Decoder`` runs it.

    Args:
        subnet: what ``construct_subnet`` returned, or ``gt.load(path, model=...)``: of the model's own classes, float32.
        path: the file; it appears whole or not at all.
        input_ids: example tokens, [B, S], int64.

    Returns:
        The path of the file.

    Raises:
        ArtifactError: no subnet, one that is a graph, or an operator without an ONNX form.
        InputError: a network that keeps no keys and values, or tokens that are none.
    """
    _check_ids(input_ids)
    _, info = own_graph(subnet, "export_decoder")
    if info.kind != "native":
        raise ArtifactError(
            "export_decoder: a graph keeps no keys and values.", expected="a subnet of the model's own classes", got="a graph",
            hint="gt.load(path, model=model)",
        )
    return _write(subnet, info.formats, Path(path), input_ids)


def dense_decoder(model: nn.Module, path: str | PathLike[str], input_ids: Tensor) -> Path:
    """Write a plain float32 language model in the same form: the other side of a comparison."""
    _check_ids(input_ids)
    return _write(model, {}, Path(path), input_ids)


def _write(net: nn.Module, formats: Mapping[str, WeightFormat], path: Path, input_ids: Tensor) -> Path:
    net, (input_ids,), _ = on_cpu(net, (input_ids,), {})
    example, shapes = _example(net, input_ids)
    graph = whole_graph(CachedStep(net).eval(), example, {})
    inner = {f"{INNER}.{name}": form for name, form in formats.items()}
    facts = {"past": json.dumps(shapes), "sizes": json.dumps(encode_sizes(input_sizes(graph)))}
    return write_graph(graph, inner, path, example, {}, finish=lambda proto: _name(proto, len(shapes), facts))


def _check_ids(input_ids: object) -> None:
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or input_ids.is_floating_point() or not input_ids.numel():
        got = f"{input_ids.dtype} {list(input_ids.shape)}" if isinstance(input_ids, Tensor) else type(input_ids).__name__
        raise InputError("export_decoder: input_ids.", expected="tokens, int64 [B, S]", got=got)


def _example(net: nn.Module, input_ids: Tensor) -> tuple[tuple[Any, ...], list[list[int]]]:
    """Return example inputs of a step, of lengths that no axis has by chance, and (heads, width) of each past tensor."""
    ids = input_ids.repeat(2, NEW)[:2, :NEW]
    empty = empty_past(net, ids)
    generator = torch.Generator().manual_seed(0)
    past = [torch.randn(2, tensor.shape[1], PAST, tensor.shape[3], generator=generator) for tensor in empty]
    return (ids, past), [[tensor.shape[1], tensor.shape[3]] for tensor in empty]


def _name(proto: onnx.ModelProto, count: int, facts: Mapping[str, str]) -> None:
    """Name inputs and outputs for what they are, and write down the shapes of an empty past and which sizes the network takes."""
    wanted = [(proto.graph.input, ["input_ids", *(f"past_{n}" for n in range(count))])]
    wanted += [(proto.graph.output, ["logits", *(f"present_{n}" for n in range(count))])]
    renamed = {item.name: name for items, names in wanted for item, name in zip(items, names, strict=True)}
    taken = {name for node in proto.graph.node for name in node.output} - renamed.keys()
    renamed |= {name: f"{name}_inner" for name in set(renamed.values()) & taken}
    for items, _ in wanted:
        for item in items:
            item.name = renamed[item.name]
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    known = {item.key: item.value for item in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**known, **facts})
