"""Trace: a model and example inputs go in, a functional ATen graph comes out. Stage 1 of the pipeline.

The graph is a plain ``torch.fx.GraphModule``: ``get_attr`` nodes name the model's own parameters and buffers, every other node is one
ATen operator with its shape, module path and source line. Nothing of the model is changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental import _config as symbolic_config
from torch.utils import _pytree as pytree

from geta_nb.errors import GetaError
from geta_nb.graph.break_up import break_up
from geta_nb.graph.lower import is_lowerable, lower
from geta_nb.graph.marks import MARK, writes_at_marks
from geta_nb.graph.nodes import hint, module_path, operator_name, overload_name, shape_of
from geta_nb.graph.objects import opened_outputs
from geta_nb.graph.quiet import quiet
from geta_nb.graph.sizes import InputSizes, sizes_of
from geta_nb.graph.tidy import inline_regions, tidy
from geta_nb.graph.twins import twin_of
from geta_nb.graph.unmap import unmap
from geta_nb.graph.untraceable import depends_on_sizes, explained
from geta_nb.views import Shown

__all__ = ["Trace", "TraceNode", "eval_mode", "hint", "module_path", "operator_name", "shape_of", "trace_model"]

Sizes = Literal["any", "batch", "fixed"]
"""Which axes of the inputs may change where the model allows it: all, the first, or none."""
Axes = Sequence[Collection[int]] | None
"""Of each input in flattened order, the axes that may change with "any"; None: all."""
_STEPWISE = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})  # decomposed, each time step becomes nodes of its own
_SHORTEST = 2.0  # seconds that an explanation may take, however soon the exporter gave up
_ROUNDS = 3  # what an operator is broken up into may have no rule either


@dataclass(frozen=True)
class TraceNode(Shown):
    """One operator of the raw trace: its name, ATen operator, output shape (hints for dynamic axes), module path and source line."""

    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    module_path: str
    source: str


@dataclass(repr=False)
class Trace(Shown):
    """The ATen graph of a model.

    Attributes:
        module: the traced ``GraphModule``; it runs, and computes what the model computes in eval mode.
        args: example inputs it was traced with.
        kwargs: example keyword inputs.
        dynamic_batch: whether the leading axis of the inputs may change.
        sizes: which sizes of the inputs it is for; None: torch does not say it in numbers.
        bound_marks: whether the model writes into what a mark hands on, so that without the mark it would compute something else.
    """

    module: fx.GraphModule
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_batch: bool
    sizes: InputSizes | None = None
    bound_marks: bool = False

    def copied(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
        """Return the same trace with another graph, yet to be compiled, and the same tensors, as if it had been made of these inputs."""
        return replace(self, module=twin_of(self.module), args=args, kwargs=kwargs)

    @cached_property
    def nodes(self) -> tuple[TraceNode, ...]:
        """Every node that computes something, in order of execution."""
        return tuple(_describe(node) for node in self.module.graph.nodes if node.op in {"call_function", "placeholder"})


def trace_model(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    understood: Callable[[object], bool] | None = None,
    sizes: Sizes = "batch",
    training: Iterable[str] = (),
) -> Trace:
    """Return the ATen graph of ``model`` in eval mode.

    Args:
        model: any module that ``torch.export`` can see through; its modes, weights and hooks stay as they are.
        args: example inputs, a tuple.
        kwargs: example keyword inputs.
        understood: says of an ATen operator whether later stages have a rule for it; others are decomposed where torch knows how.
        sizes: which axes of the inputs may change.
        training: names of parameters around which branches go as in training, see :func:`branching_mode`.

    Raises:
        TraceError: torch.export cannot trace the model; the message has torch's own words, and a hint where the reason is known.
    """
    kwargs = dict(kwargs or {})
    exported, dynamic = export_program(model, args, kwargs, sizes=sizes, training=training)
    bound = writes_at_marks(exported.graph_module)
    try:
        with quiet(), general_sizes(sizes == "any"):
            module = _functional(exported, understood)
    except GetaError:
        raise
    except Exception as error:
        with eval_mode(model), torch.no_grad():
            raise explained(model, args, kwargs, error) from error
    tidy(module)
    return Trace(module, args, kwargs, dynamic, sizes_of(exported, strict=sizes == "any"), bound)


def export_program(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    sizes: Sizes = "batch",
    axes: Axes = None,
    training: Iterable[str] = (),
) -> tuple[Any, bool]:
    """Return torch's exported program of ``model`` in eval mode, and whether its batch axis may change.

    Args:
        model, args, kwargs: what to trace.
        sizes: which axes may change where the model allows that.
        axes: of each input in flattened order, the axes that "any" stands for; None: all.
        training: names of parameters around which branches go as in training, see :func:`branching_mode`.

    Raises:
        TraceError: torch.export cannot trace the model.
    """
    with branching_mode(model, training), torch.no_grad():
        return _export(model, args, kwargs, sizes, axes)


def _functional(exported: Any, understood: Callable[[object], bool] | None) -> fx.GraphModule:
    """Return the exported graph with functional operators alone, and those without a rule broken up as far as torch knows how.

    Torch's own decomposition traces the whole graph once more, which takes as long as the export: only where it is needed.
    """
    if is_lowerable(exported.graph_module):
        module = exported.module(check_guards=False)
        inline_regions(module)
        if unmap(module):
            lower(module)
            if _is_broken_up(module, understood):
                return cast(fx.GraphModule, module)
    exported = exported.run_decompositions({})
    module = exported.module(check_guards=False)
    if _is_broken_up(module, understood):
        return cast(fx.GraphModule, module)
    for _ in range(_ROUNDS):
        if not (table := _missing(exported.graph, understood)):
            break
        exported = exported.run_decompositions(table)
    return cast(fx.GraphModule, exported.module(check_guards=False))


def _is_broken_up(module: fx.GraphModule, understood: Callable[[object], bool] | None) -> bool:
    """Break up operators without a rule, and those that this brings, one by one; whether each is done with then."""
    for _ in range(_ROUNDS):
        if not (table := _missing(module.graph, understood)):
            return True
        if not break_up(module, table):
            return False
    return not _missing(module.graph, understood)


def _missing(graph: fx.Graph, understood: Callable[[object], bool] | None) -> dict[Any, Any]:
    """Operators of a graph that no rule understands and torch can break up, with what breaks them up."""
    unknown = _unknown(graph, understood) if understood is not None else set()
    tables: Any = torch.export.default_decompositions() if unknown else {}
    return {target: tables[target] for target in unknown if target in tables}


def _unknown(graph: fx.Graph, understood: Callable[[object], bool]) -> set[torch._ops.OpOverload]:
    """Operators of a graph that no rule understands; those that write are made functional before, those that go step by step are kept."""
    targets = {node.target for node in graph.nodes if _has_labels(node)}
    unknown = {target for target in targets if isinstance(target, torch._ops.OpOverload) and not understood(target)}
    unknown = {target for target in unknown if overload_name(target) not in _STEPWISE and not target._schema.is_mutable}
    return unknown - {MARK}


def _has_labels(node: fx.Node) -> bool:
    """Whether an operator makes tensors of tensors; a size or a range of numbers needs no rule, and a decomposition costs an export."""
    makes = isinstance(node.meta.get("val"), (Tensor, list, tuple))
    return makes and node.op == "call_function" and any(shape_of(item) is not None for item in node.all_input_nodes)


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


@contextmanager
def branching_mode(model: nn.Module, parameters: Iterable[str]) -> Iterator[None]:
    """Let branches around these parameters go as in training; everything else is in eval mode.

    Modules around a parameter choose whether it is read; a norm or a dropout, which holds no other module, only computes.
    """
    names = list(parameters)
    around = {name[:at] for name in names for at, letter in enumerate(name) if letter == "."} | {""}
    with eval_mode(model):
        for path, module in model.named_modules() if names else ():
            module.training = path in around and next(module.children(), None) is not None
        yield


def _describe(node: fx.Node) -> TraceNode:
    value = node.meta.get("val")
    lines = [line.strip() for line in str(node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File ")]
    source = re.sub(r'^File "(?:.*/)?([^/"]+)", line (\d+).*$', r"\1:\2", lines[-1]) if lines else ""
    dtype = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__
    return TraceNode(node.name, operator_name(node), shape_of(node) or (), dtype, module_path(node), source)


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], sizes: Sizes, axes: Axes) -> tuple[Any, bool]:
    """Export with a dynamic batch axis where the model allows it, else with the shapes as they are."""
    errors: list[Exception] = []
    begin = time.monotonic()
    for tried_args, tried_kwargs, shapes in (*_variants(args, kwargs, sizes, axes), (args, kwargs, None)):
        try:
            with quiet(), general_sizes(sizes == "any"), opened_outputs(model):
                exported = torch.export.export(model, tried_args, tried_kwargs, dynamic_shapes=shapes, strict=False)
            dynamic = shapes is not None and _is_dynamic(exported, (tried_args, tried_kwargs))
            if shapes is None or sizes == "any" or dynamic:
                return exported, dynamic
            # torch found out on the way that only the traced size works, which need not be the size of the example
        except Exception as error:
            errors.append(error)
            if not depends_on_sizes(error):
                break
    raise explained(model, args, kwargs, errors[-1], max(_SHORTEST, time.monotonic() - begin)) from errors[-1]


@contextmanager
def general_sizes(wanted: bool) -> Iterator[None]:
    """Let torch reason about sizes as about any number, not about 0 and 1 apart: fewer conditions, and far fewer proofs."""
    patch: Any = symbolic_config.patch  # type: ignore[attr-defined]
    with patch(backed_size_oblivious=True) if wanted else nullcontext():
        yield


def _is_dynamic(exported: torch.export.ExportedProgram, inputs: Any) -> bool:
    """Whether the first axis of some input may have another size than that of the example."""
    values = [node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"]
    firsts: list[Any] = [value.shape[0] for value in values if isinstance(value, Tensor) and value.dim()]
    if not any(isinstance(size, torch.SymInt) and not size.node.expr.is_number for size in firsts):
        return False
    if (sizes := sizes_of(exported)) is None:
        return True
    free = {str(item.axes[0]) for item in sizes.inputs if item.axes} & sizes.free.keys()
    return any(sizes.varies(name, pytree.tree_leaves(inputs)) for name in free)


def _variants(args: tuple[Any, ...], kwargs: dict[str, Any], sizes: Sizes, axes: Axes) -> Iterator[tuple[Any, Any, Any]]:
    """Yield inputs, and which of their axes may change, the most first."""
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    batches = {leaf.shape[0] for leaf in tensors if leaf.dim() > 0}
    batched = len(batches) == 1 and 0 not in batches and all(leaf.dim() for leaf in tensors)
    # torch.export specialises sizes 0 and 1, so a single example is traced as a batch of two
    copies = 2 if batched and batches == {1} else 1
    if sizes == "any":
        yield _marked(args, kwargs, copies, axes)
    if sizes != "fixed" and batched:
        yield _marked(args, kwargs, copies, [(0,)] * len(pytree.tree_leaves((args, kwargs))))


def _marked(args: tuple[Any, ...], kwargs: dict[str, Any], copies: int, axes: Axes) -> tuple[Any, Any, Any]:
    """Return copies of inputs with marks on the axes that may change; None: on all.

    Copies always: torch marks the tensors themselves as dynamic, and the user's, or a second attempt's, must not be marked.
    """

    def copied(leaf: Any) -> Any:
        return torch.cat([leaf] * copies) if isinstance(leaf, Tensor) and leaf.dim() else leaf

    args, kwargs = pytree.tree_map(copied, (args, kwargs))
    shapes = torch.export.ShapesCollection()
    for at, leaf in enumerate(pytree.tree_leaves((args, kwargs))):
        if isinstance(leaf, Tensor) and leaf.dim():
            free = range(leaf.dim()) if axes is None else axes[at]
            shapes[leaf] = dict.fromkeys(free, torch.export.Dim.AUTO)
    return args, kwargs, shapes
