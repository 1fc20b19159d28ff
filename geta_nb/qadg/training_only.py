"""Branches that run in training alone (auxiliary heads): their parameters are named, and what feeds them stays whole. Beside the analysis.

In: a model, and what its trace in evaluation has found. Out: the parameters that the trace does not read, and those whose channels may not
go because a branch reads them that runs only in training. What is read is seen by running; a second trace is made where something is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from geta_nb.errors import GetaWarning, TraceError
from geta_nb.graph import branching_mode, own_draws
from geta_nb.groups import GroupTable, Propagation, Protected, ProtectedList
from geta_nb.quantizers import OwnTensors

UNREAD = "a parameter that the network does not read in evaluation"
FED = "channels that a branch reads which runs in training only"


class Traced(Protocol):
    """What a trace in training found."""

    state: Propagation
    table: GroupTable


@dataclass(frozen=True)
class TrainingOnly:
    """What is of training alone.

    Attributes:
        unread: own names of parameters that the trace in evaluation does not read.
        kept: own names of parameters that make channels for those that training reads.
    """

    unread: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()

    def shown_in(self, protected: ProtectedList, asked: Callable[[str], bool]) -> ProtectedList:
        """Return what is protected, with these and their reasons; ``asked``: what the user protects."""
        entries = [
            Protected(item.path, FED, "training") if item.operator == "protect" and _of_training(item, self.kept, asked) else item
            for item in protected
        ]
        return ProtectedList([*entries, *(Protected(name, UNREAD, "training") for name in self.unread)])


def _of_training(item: Protected, kept: frozenset[str], asked: Callable[[str], bool]) -> bool:
    name = item.path.partition("[")[0]
    return name in kept and not asked(name)


def find_training_only(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    module: fx.GraphModule,
    names: Mapping[str, str],
    tensors: OwnTensors,
    table: GroupTable,
    plain: AbstractContextManager[None],
    trace_training: Callable[[Iterable[str]], Traced],
) -> TrainingOnly:
    """Return what ``model`` has for training alone; its modes are as before afterwards.

    Args:
        model: the model.
        args, kwargs: example inputs.
        module, names: its trace in evaluation, and get_attr target -> own name.
        tensors: its own tensors.
        table: groups as evaluation shows them.
        plain: lets it compute without quantizers for a while.
        trace_training: traces it with the branches that training takes around parameters.

    Warns with a :class:`~geta_nb.errors.GetaWarning` where training reads such a parameter and cannot be traced.
    """
    targets = {str(node.target) for node in module.graph.find_nodes(op="get_attr") if node.users}
    seen = {id(tensors.parameters[names[target]]) for target in targets if names.get(target) in tensors.parameters}
    unread = {name: tensor for name, tensor in tensors.parameters.items() if id(tensor) not in seen}
    found = TrainingOnly(tuple(unread))
    if not unread or any(tensor.is_meta for tensor in unread.values()):
        return found
    try:
        with plain:
            read = _read_in_training(model, args, kwargs, unread)
    except Exception as error:  # of a forward that wants more in training: targets, other inputs
        _warn(list(unread), f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}")
        return found
    alive = {name for name, tensor in unread.items() if id(tensor) in read}
    if not alive:
        return found
    try:
        training = trace_training(sorted(alive))
    except TraceError as error:
        _warn(sorted(alive), str(error.got))
        return found
    if training.state.findings.unknown:
        _warn(sorted(alive), f"no rule for {', '.join(sorted({name for name, _ in training.state.findings.unknown}))}")
        return found
    return TrainingOnly(tuple(unread), frozenset(_feeding(table, training.table, alive)))


def _warn(names: list[str], got: str) -> None:
    warnings.warn(
        GetaWarning(
            "GETA: parameters that evaluation does not read, and training could not be looked at.", at=", ".join(names[:5]),
            expected="a branch that runs in training only to be seen, so that what feeds it stays", got=got,
            hint='gt.GETA(..., protect=("path.of.the.layer.before",)) keeps its input whole',
        ),
        stacklevel=6,
    )


class _Reads(TorchFunctionMode):
    """Writes down which tensors functions are given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.update(id(leaf) for leaf in pytree.tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor))
        return func(*args, **(kwargs or {}))


def _read_in_training(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], unread: Iterable[str]) -> set[int]:
    """Return the identities of the tensors that functions read where branches go as in training; buffers and inputs stay as they are."""
    before = [(owner, dict(owner._buffers)) for owner in model.modules()]
    reads = _Reads()
    try:
        for owner, buffers in before:
            owner._buffers = {name: None if value is None else value.clone() for name, value in buffers.items()}
        given = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
        with branching_mode(model, unread), torch.no_grad(), own_draws(), reads:
            model(*given[0], **given[1])
    finally:
        for owner, buffers in before:
            owner._buffers = buffers
    return reads.seen


def _feeding(evaluation: GroupTable, training: GroupTable, alive: set[str]) -> Iterator[str]:
    """Yield parameters that make channels which are no group in training, or one that a parameter of training is part of."""
    touched = np.zeros(training.n_groups + 1, dtype=bool)
    touched[-1] = True  # of no group
    for entry in training.axis_maps:
        if entry.parameter in alive:
            touched[entry.group_of_index] = True
    there = {(entry.parameter, entry.axis): entry.group_of_index for entry in training.axis_maps}
    for entry in evaluation.axis_maps:
        other = there.get((entry.parameter, entry.axis))
        goes = entry.group_of_index >= 0
        if entry.producing and (other is None or bool(touched[other[goes]].any())):
            yield entry.parameter
