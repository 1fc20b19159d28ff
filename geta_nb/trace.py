"""Trace: a model and example inputs go in, a functional ATen graph comes out. First stage of the pipeline.

The graph is a plain ``torch.fx.GraphModule``: ``get_attr`` nodes name the model's own parameters and buffers, every other node is one
ATen operator with its shape, module path and source line. Nothing of the model is changed.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from geta_nb.errors import CalibrationError, InputError, TraceError
from geta_nb.views import Shown

_PRIVATE_SCOPE = "_empty_nn_module_stack_from_metadata_hook"
_SOME_SIZE = 6  # of an axis whose length only data decides; nothing along it is ever removable
_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


@dataclass(frozen=True)
class TraceNode(Shown):
    """One operator of the raw trace: its name, ATen operator, output shape (hints for dynamic axes), module path and source line."""

    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    module_path: str
    source: str


@dataclass
class Trace(Shown):
    """The ATen graph of a model.

    Attributes:
        module: the traced ``GraphModule``; it runs, and computes what the model computes in eval mode.
        args: example inputs it was traced with.
        kwargs: example keyword inputs.
        dynamic_batch: whether the leading axis of the inputs may change.
    """

    module: fx.GraphModule
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_batch: bool

    @cached_property
    def nodes(self) -> tuple[TraceNode, ...]:
        """Every node that computes something, in order of execution."""
        return tuple(_describe(node) for node in self.module.graph.nodes if node.op in {"call_function", "placeholder"})


def trace_model(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Trace:
    """Return the ATen graph of ``model`` in eval mode.

    Args:
        model: any module that ``torch.export`` can see through; its modes, weights and hooks stay as they are.
        args: example inputs, a tuple.
        kwargs: example keyword inputs.

    Raises:
        TraceError: torch.export cannot trace the model; the message is torch's own, from its strict mode.
    """
    kwargs = dict(kwargs or {})
    with eval_mode(model), torch.no_grad():
        exported, dynamic = _export(model, args, kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export warns about its own deprecations
        module = exported.run_decompositions({}).module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    _inline_regions(module)
    _make_scales_explicit(module)
    _drop_assertions(module)
    module.graph.eliminate_dead_code()
    module.recompile()
    return Trace(module, args, kwargs, dynamic)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every submodule into eval mode and give each its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for module, _ in modes:
            module.training = False
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in modes:
            module.training = mode


def module_path(node: fx.Node) -> str:
    """Return the dotted path of the innermost module whose forward ran this node ('' for the root)."""
    for path, _ in reversed(list((node.meta.get("nn_module_stack") or {}).values())):
        if path != _PRIVATE_SCOPE:
            return re.sub(r"@\d+", "", str(path))
    return ""


def hint(size: int | torch.SymInt) -> int:
    """Return the traced value of a size, without specialising a dynamic one; for a size that depends on data, some value."""
    if isinstance(size, int):
        return size
    if size.node.hint is not None:
        return int(size.node.hint)
    return int(size.node.expr.subs({symbol: _SOME_SIZE for symbol in size.node.expr.free_symbols}))


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the output shape of a node as plain numbers, or None when it is not a tensor."""
    value = node.meta.get("val")
    return tuple(hint(size) for size in value.shape) if isinstance(value, Tensor) else None


def operator_name(node: fx.Node) -> str:
    """Return the short operator name of a node: ``conv2d`` for ``aten.conv2d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[-1]
    return getattr(node.target, "__name__", str(node.target)) if node.op == "call_function" else node.op


def _describe(node: fx.Node) -> TraceNode:
    value = node.meta.get("val")
    lines = [line.strip() for line in str(node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File ")]
    source = re.sub(r'^File "(?:.*/)?([^/"]+)", line (\d+).*$', r"\1:\2", lines[-1]) if lines else ""
    dtype = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__
    return TraceNode(node.name, operator_name(node), shape_of(node) or (), dtype, module_path(node), source)


def check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the model once in eval mode; raise InputError when it rejects its example inputs, with shapes and its own words."""
    if any(parameter.is_meta for parameter in model.parameters()):
        return  # a meta model cannot run on real inputs; export itself will tell
    try:
        with eval_mode(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(*args, **kwargs)
    except CalibrationError:
        return  # quantizers of an earlier GETA that have not seen data: the trace does not need their ranges
    except Exception as error:
        shapes = [tuple(leaf.shape) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        raise InputError(
            "GETA: the model rejects the example inputs.",
            at=type(model).__name__,
            expected="inputs for which model(*example_inputs, **example_kwargs) runs",
            got=f"shapes {shapes}; {type(error).__name__}: {_first_line(error)}",
            hint="pass the tensors you would train with, batch axis first",
        ) from error


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, bool]:
    """Export with a dynamic batch axis where the model allows it, else with the shapes as they are."""
    errors: list[Exception] = []
    for tried_args, tried_kwargs, shapes in (*_dynamic_variant(args, kwargs), (args, kwargs, None)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.export.export(model, tried_args, tried_kwargs, dynamic_shapes=shapes, strict=False), shapes is not None
        except Exception as error:
            errors.append(error)
    raise _explained(model, args, kwargs, errors[-1]) from errors[-1]


def _dynamic_variant(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    batches = {leaf.shape[0] for leaf in tensors if leaf.dim() > 0}
    if len(batches) != 1 or 0 in batches or any(leaf.dim() == 0 for leaf in tensors):
        return
    copies = 2 if batches == {1} else 1  # torch.export specialises sizes 0 and 1, so a single example is traced as a batch of two
    # copies always: torch marks the tensors themselves as dynamic, and the user's, or a second attempt's, must not be marked
    args, kwargs = pytree.tree_map(lambda leaf: torch.cat([leaf] * copies) if isinstance(leaf, Tensor) else leaf, (args, kwargs))
    shapes = torch.export.ShapesCollection()
    for leaf in pytree.tree_leaves((args, kwargs)):
        if isinstance(leaf, Tensor):
            shapes[leaf] = {0: torch.export.Dim.AUTO}
    yield args, kwargs, shapes


def _explained(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> TraceError:
    """Ask the strict exporter, which explains better, and put its words into our form."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.export(model, args, kwargs, strict=True)
    except Exception as strict_error:
        error = strict_error
    user_code = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', str(error))
    where = next((f"{name.rsplit('/', 1)[-1]}:{line} in {scope}" for name, line, scope in reversed(user_code)), type(model).__name__)
    return TraceError(
        "GETA: torch.export cannot see through the model.",
        at=where,
        expected="a forward whose control flow does not depend on the values of tensors",
        got=f"{type(error).__name__}: {_first_line(error)}",
        hint="replace `if x.sum() > 0:` by torch.where(...), or move that part out of the model",
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]


def _inline_regions(module: fx.GraphModule) -> None:
    """Replace grad-mode and autocast regions, which compute nothing themselves, by their contents."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or getattr(node.target, "__name__", "") not in _INLINED:
            continue
        position = next(i for i, arg in enumerate(node.args) if isinstance(arg, fx.Node) and arg.op == "get_attr" and _is_graph(module, arg))
        body = module.get_submodule(str(node.args[position].target))  # type: ignore[union-attr]
        inner = [arg for arg in node.args[position + 1 :]]
        holders = iter(inner)
        mapping = {item: next(holders) for item in body.graph.nodes if item.op == "placeholder"}  # type: ignore[union-attr]
        with graph.inserting_before(node):
            for item in body.graph.nodes:  # type: ignore[union-attr]
                if item.op == "get_attr":
                    raise TraceError("trace_model: a no-grad region owns tensors of its own.", at=module_path(node))
                if item.op not in {"placeholder", "output"}:
                    mapping[item] = graph.node_copy(item, lambda old: mapping[old])  # type: ignore[arg-type, return-value]
        output = next(item for item in body.graph.nodes if item.op == "output")  # type: ignore[union-attr]
        results = fx.map_arg(output.args[0], lambda old: mapping[old])
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index, call-overload]
            graph.erase_node(user)
        graph.erase_node(node)


def _drop_assertions(module: fx.GraphModule) -> None:
    """Assertions on dtypes and sizes belong to the sizes as traced; a cut graph has others."""
    for node in reversed(module.graph.nodes):
        if not node.users and node.op == "call_function" and operator_name(node).startswith(("_assert", "sym_constrain")):
            module.graph.erase_node(node)


def _is_graph(module: fx.GraphModule, node: fx.Node) -> bool:
    try:
        return isinstance(module.get_submodule(str(node.target)), fx.GraphModule)
    except AttributeError:
        return False


def _make_scales_explicit(module: fx.GraphModule) -> None:
    """Write down the default scale of attention, so that cutting a head dimension cannot change it."""
    for node in module.graph.nodes:
        if operator_name(node) == "scaled_dot_product_attention" and node.kwargs.get("scale") is None:
            query = shape_of(node.args[0])
            assert query is not None
            node.kwargs = {**node.kwargs, "scale": query[-1] ** -0.5}
