"""Take the mean over its channels out of a residual stream, and let the layer norms that read it be root-mean-square norms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from geta_nb.centering.layer_norms import LayerNorm, find_layer_norms
from geta_nb.centering.streams import Stream, find_streams
from geta_nb.errors import PruningSpaceError, RunStateError, SubnetError
from geta_nb.graph import (
    are_close,
    attribute_tensor,
    check_inputs,
    example_arguments,
    max_difference,
    module_path,
    operator_name,
    outputs_of,
    trace_model,
)
from geta_nb.quantizers import Quantizer
from geta_nb.views import Shown


@dataclass(frozen=True, repr=False)
class Centered(Shown):
    """What :func:`center` did.

    Attributes:
        norms: paths of the layer norms that are root-mean-square norms now.
        writers: names of the parameters and buffers from which a mean was taken.
        untied: names of parameters that were shared and have a copy of their own now.
        left: path of a layer norm that stays -> why.
        max_abs_difference: largest difference of the outputs on the example inputs, in their units: rounding.
    """

    norms: tuple[str, ...]
    writers: tuple[str, ...]
    untied: tuple[str, ...]
    left: Mapping[str, str]
    max_abs_difference: float


def center(model: nn.Module, example_inputs: Any, *, example_kwargs: Mapping[str, Any] | None = None) -> Centered:
    """Turn the layer norms over residual streams into root-mean-square norms, exactly and in place.

    Where every reader of a stream is a layer norm, which subtracts the mean over the channels, that mean never matters. It is taken out of
    what writes to the stream (rows of weights, biases, tables, tokens), and each such norm is a
    :class:`~geta_nb.centering.norm.CenteredNorm` from then on: the width of the stream is an ordinary group then. Streams that
    something else reads or writes stay, and say why.

    This is so in eval mode, and in training mode where nothing is dropped from the stream itself: dropout on it gives it a mean, which a
    layer norm would take out and this norm does not.

    Args:
        model: a network before :class:`geta_nb.GETA`; its parameters stay the same objects. A table that is tied to a layer behind the
            stream (the head of a language model) gets a copy of its own, so that the network has more parameters; one that is loaded
            into the result later is built, and centered, in the same way.
        example_inputs: tensor or tuple, as for GETA.
        example_kwargs: keyword inputs.

    Raises:
        PruningSpaceError: no stream can do without its mean; the message names readers and writers. Nothing was changed.
        RunStateError: the model has quantizers already.
        TraceError: torch.export cannot see through the model.

    Source: Ashkboos et al. 2024, arXiv:2401.15024, section 3.

    >>> import geta_nb as gt
    >>> body = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    >>> net = nn.Sequential(nn.Linear(4, 8), body, nn.LayerNorm(8), nn.Linear(8, 2))
    >>> gt.center(net, torch.randn(3, 4)).norms
    ('1.0', '2')
    """
    args, kwargs = example_arguments(example_inputs, example_kwargs)
    check_inputs(model, args, kwargs)
    _check_plain(model)
    trace = trace_model(model, args, kwargs, sizes="fixed")
    graph = trace.module.graph
    norms = {norm.path: norm for norm in find_layer_norms(model, graph)}
    streams = find_streams(graph, list(norms.values()))
    tensors = {node: attribute_tensor(trace.module, str(node.target)) for node in graph.nodes if node.op == "get_attr"}
    for stream in streams:
        stream.reason = stream.reason or _not_ours(model, stream, tensors)
    free, left = _sorted_out(streams, norms)
    if norms and not free:
        raise PruningSpaceError(
            "center: the mean of every stream matters.", at=next(iter(left)), expected="a stream that layer norms alone read",
            got="; ".join(f"{path}: {reason}" for path, reason in list(left.items())[:3]),
            hint="approximate_norms=True in gt.GETA, and train on after the cut",
        )
    before = outputs_of(model, args, kwargs)
    change = _Change(model, tensors)
    try:
        for stream in free:
            change.take_mean_out(stream)
        for path in (path for path in norms if path not in left):
            change.replace(path, norms[path])
        after = outputs_of(model, args, kwargs)
        if not are_close(after, before):
            raise SubnetError(
                "center: the rewritten network does not compute what it did.", at=type(model).__name__, expected="equal outputs",
                got=f"a difference of {max_difference(after, before):.3g}", hint="please report the model; nothing was changed",
            )
    except BaseException:
        change.undo()
        raise
    done = tuple(path for path in norms if path not in left)
    names = [name for name, _ in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))]
    writers = tuple(name for name in names if name in change.centred)
    return Centered(done, writers, tuple(change.untied), left, max_difference(after, before))


def _check_plain(model: nn.Module) -> None:
    quantized = next((path for path, module in model.named_modules() if isinstance(module, Quantizer)), None)
    if quantized is not None:
        raise RunStateError(
            "center: the model has quantizers already.", at=quantized, expected="a network before gt.GETA", got="a quantizer",
            hint="gt.center(model, example_inputs) comes before gt.GETA(model, example_inputs)",
        )


def _sorted_out(streams: list[Stream], norms: Mapping[str, LayerNorm]) -> tuple[list[Stream], dict[str, str]]:
    """Return the streams whose mean never matters, and why each other norm stays."""
    left = {path: stream.reason for stream in streams if stream.reason for path in sorted(stream.norms)}
    order = {path: left[path] for path in norms if path in left}
    return [stream for stream in streams if not stream.reason and not stream.norms & left.keys()], order


def _not_ours(model: nn.Module, stream: Stream, tensors: Mapping[fx.Node, Tensor]) -> str:
    """Return why the writers of a stream cannot be changed; "" where they can."""
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for node in (*stream.writers, *(factor.vector for factor in stream.factors)):
        if id(tensors[node]) not in own:
            return f"a constant ({node.target}) is added to it"
        if not tensors[node].is_floating_point() or tensors[node].is_meta:
            return f"{node.target} has no numbers that can be changed"
    named = {str(node.target): tensors[node] for node in stream.writers}
    for name, (writing, reading) in stream.untied.items():
        owners = [_place(model, user, named[name]) for user in writing]
        if None in owners or {module_path(user) for user in writing} & {module_path(user) for user in reading}:
            where = module_path(reading[0]) or "the root"
            return f"{name}, which writes to it, is read otherwise too, by {operator_name(reading[0])} in {where}"
    return ""


def _place(model: nn.Module, user: fx.Node, tensor: Tensor) -> tuple[str, str] | None:
    """Return the module that ran a node and the name under which it owns a tensor."""
    path = module_path(user)
    try:
        owned = model.get_submodule(path)._parameters
    except AttributeError:
        return None
    return next(((path, name) for name, parameter in owned.items() if parameter is tensor), None)


class _Change:
    """What was done to a model, so that it can be undone."""

    def __init__(self, model: nn.Module, tensors: Mapping[fx.Node, Tensor]) -> None:
        self.centred: dict[str, None] = {}
        self.untied: list[str] = []
        self._model, self._tensors = model, tensors
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self._names = {id(tensor): name for name, tensor in reversed(named)}
        self._values: dict[int, tuple[Tensor, Tensor]] = {}
        self._owners: list[tuple[dict[str, Any], str, Any]] = []
        self._copies: dict[str, nn.Parameter] = {}

    @torch.no_grad()
    def take_mean_out(self, stream: Stream) -> None:
        """Multiply vectors into the writers of a stream, and subtract from each writer its mean over the channels."""
        for factor in stream.factors:
            vector = self._kept(self._tensors[factor.vector])
            for node, axis in factor.writers:
                writer = self._kept(self._tensors[node])
                form = [1] * writer.dim()
                form[axis] = -1
                writer.copy_(writer.double() * vector.double().reshape(form))
            vector.fill_(1)
        done: set[int] = set()
        for node, axis in stream.writers.items():
            writer = self._writer(stream, node)
            if id(writer) not in done:
                done.add(id(writer))
                wide = writer.double()
                writer.copy_(wide - wide.mean(axis, keepdim=True))

    def _writer(self, stream: Stream, node: fx.Node) -> Tensor:
        """Return the tensor that writes: that of the model, or a copy of its own where something else reads it too."""
        tensor, target = self._tensors[node], str(node.target)
        if target not in stream.untied:
            self.centred[self._names[id(tensor)]] = None
            return self._kept(tensor)
        if target not in self._copies:
            self._copies[target] = nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
            places = dict.fromkeys(_place(self._model, user, tensor) for user in stream.untied[target][0])
            for path, name in (place for place in places if place is not None):
                owner = self._model.get_submodule(path)._parameters
                self._owners.append((owner, name, owner[name]))
                owner[name] = self._copies[target]
                self.untied.append(f"{path}.{name}" if path else name)
            self.centred |= dict.fromkeys(self.untied)
        return self._copies[target]

    def replace(self, path: str, norm: LayerNorm) -> None:
        """Put a root-mean-square norm in the place of a layer norm, under all its names."""
        old = self._model.get_submodule(path)
        new = norm.successor(old)
        for module in list(self._model.modules()):
            for name, child in module._modules.items():
                if child is old:
                    self._owners.append((module._modules, name, old))
                    module._modules[name] = new

    def undo(self) -> None:
        """Give the model back what it had."""
        with torch.no_grad():
            for tensor, value in self._values.values():
                tensor.copy_(value)
        for owner, name, old in reversed(self._owners):
            owner[name] = old

    def _kept(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._values:
            self._values[id(tensor)] = (tensor, tensor.detach().clone())
        return tensor
