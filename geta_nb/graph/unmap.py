"""What ``torch.vmap`` left in an exported graph, as the batched operators that it runs. Under ``trace``, before ``lower``.

In: a graph in which a mapped region stands between a call that opens it and one that closes it, and tensors inside have an axis that
nobody sees. Out: the same graph with that region traced alone, on the fake tensors that go into it: operators with all their axes.
Language models make their masks that way. Torch would trace the whole graph anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

_OPEN, _CLOSE = "_vmap_increment_nesting", "_vmap_decrement_nesting"
_MAPPING = frozenset((_OPEN, _CLOSE, "_add_batch_dim", "_remove_batch_dim", "lazy_load_decompositions"))


def is_mapping(node: fx.Node) -> bool:
    """Whether a node is one of the calls by which ``torch.vmap`` opens and closes a region and gives tensors an axis."""
    target: Any = node.target
    return getattr(target, "__name__", "") in _MAPPING and getattr(target, "__module__", "").startswith("torch._functorch")


def unmap(module: fx.GraphModule) -> bool:
    """Write out every mapped region of a graph; whether there is none left. Regions of autograd and the like must be inlined already."""
    depth, region = 0, []
    for node in list(module.graph.nodes):
        if not is_mapping(node) and not depth:
            continue
        name = getattr(node.target, "__name__", "")
        depth += (name == _OPEN) - (name == _CLOSE)
        region.append(node)
        if depth == 0 and name == _CLOSE:
            if not _write_out(module.graph, region):
                return False
            region = []
    return not region


def _write_out(graph: fx.Graph, region: list[fx.Node]) -> bool:
    """Replace one region; False where it holds what must not be run alone, or torch cannot run it on fake tensors."""
    inside = set(region)
    if any(node.op not in ("call_function", "get_attr") or _writes(node) for node in region):
        return False
    inputs = list(dict.fromkeys(item for node in region for item in node.all_input_nodes if item not in inside or item.op == "get_attr"))
    ran = [node for node in region if node.op == "call_function"]
    results = [node for node in ran if any(user not in inside for user in node.users)]
    if not results or not all("val" in item.meta for item in inputs):
        return False
    try:
        parts = _traced(ran, inputs, results)
    except Exception:  # of torch's own, on a form that it does not know
        return False
    if not all(item.op in ("placeholder", "call_function", "output") for item in parts.graph.nodes):
        return False  # a constant of its own
    _splice(graph, region, parts.graph, inputs, results)
    return True


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _traced(ran: list[fx.Node], inputs: list[fx.Node], results: list[fx.Node]) -> fx.GraphModule:
    def call(*given: Any) -> Any:
        values: dict[fx.Node, Any] = dict(zip(inputs, given, strict=True))
        for node in ran:
            target: Any = node.target
            values[node] = target(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))
        return [values[node] for node in results]

    given = [item.meta["val"] for item in inputs]
    mode = detect_fake_mode([value for value in given if isinstance(value, Tensor)]) or FakeTensorMode()
    with torch.no_grad(), mode:
        traced: fx.GraphModule = make_fx(call, pre_dispatch=False)(*given)
    return traced


def _splice(graph: fx.Graph, region: list[fx.Node], parts: fx.Graph, inputs: list[fx.Node], results: list[fx.Node]) -> None:
    """Put the parts behind the region, in its module and at its line, and take the region out."""
    mapping: dict[fx.Node, fx.Node] = dict(zip(parts.find_nodes(op="placeholder"), inputs, strict=True))
    where = {key: value for key, value in results[0].meta.items() if key in ("nn_module_stack", "stack_trace")}
    last = region[-1]
    for item in parts.nodes:
        if item.op == "call_function":
            with graph.inserting_after(last):
                last = mapping[item] = graph.node_copy(item, mapping.__getitem__)
            last.meta = {**where, "val": item.meta.get("val")}
    made: Any = parts.output_node().args[0]
    inside = set(region)
    for old, new in zip(results, made, strict=True):
        old.replace_all_uses_with(mapping[new], lambda user: user not in inside)
    for node in reversed(region):
        if not node.users:
            graph.erase_node(node)
