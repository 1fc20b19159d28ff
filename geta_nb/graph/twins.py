"""A second graph module on the same tensors, and graphs that are compiled when they first run. Beside the trace.

In: a traced graph module. Out: another one with nodes of its own, in which every name is the same tensor: what changes the one leaves the
other.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import fx, nn

_TABLES = ("_parameters", "_buffers", "_non_persistent_buffers_set", "meta")
_GRAPH = frozenset(("_graph", "_code", "_lineno_map", "_prologue_start", "_modules"))


def twin_of(module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph module of the same names, tensors and signature; notes at its nodes are copies, what they hold is shared.

    It is not compiled, which takes as long as the rest: :func:`compile_later` before it runs.
    """
    graph = fx.Graph()
    result = graph.graph_copy(module.graph, {})
    graph.output(result).meta.update(module.graph.output_node().meta)
    graph.set_codegen(module.graph._codegen)  # never changed in place
    twin = fx.GraphModule(nn.Module(), fx.Graph())
    _fill(twin, module)
    twin._graph, graph.owning_module = graph, twin
    return twin


def _fill(twin: nn.Module, module: nn.Module) -> None:
    """Let a new module have all that another has; submodules that are no graphs are new too."""
    for name, value in module.__dict__.items():
        if name in _GRAPH:
            continue
        if isinstance(value, MethodType) and value.__self__ is module:  # an exported program's train and eval
            value = MethodType(value.__func__, twin)
        twin.__dict__[name] = value.copy() if name in _TABLES else value
    made: dict[str, Any] = {}
    for name, child in module._modules.items():
        if type(child) is nn.Module:
            made[name] = nn.Module()
            _fill(made[name], child)
        else:
            made[name] = child
    twin._modules.update(made)


def compile_later(module: fx.GraphModule) -> None:
    """Say that a graph has changed: it is compiled when it first runs, or is asked for its code. Most traces never do."""
    own: Any = type(module)  # torch gives each graph module a class of its own, and writes its forward there
    own.forward, own.code = property(_compiled_forward), property(_compiled_code)


def _compiled_forward(module: fx.GraphModule) -> Any:
    module.recompile()  # which puts the function in place of this property
    return module.forward


def _compiled_code(module: fx.GraphModule) -> str:
    return str(module.recompile().src)
