"""Residual streams: what layer norms read, with all that writes to it and all else that reads it.

In: the graph of a model and its layer norms. Out: streams, each with the parameters that write to it, or with the reason why its mean
matters. A stream is found from a norm's input, up and down, through operators that a mean over the channels passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from geta_nb.centering.layer_norms import LayerNorm
from geta_nb.centering.relations import NotLinear, Place, sources
from geta_nb.graph import module_path, operator_name, shape_of


@dataclass(frozen=True)
class Factor:
    """A vector that scales a writer's output channel by channel (LayerScale): it goes into the writer, and is ones from then on.

    Attributes:
        vector: node of the parameter.
        writers: parameters that it is multiplied into, with their channel axes.
    """

    vector: fx.Node
    writers: tuple[Place, ...]


@dataclass
class Stream:
    """One stream.

    Attributes:
        norms: paths of the layer norms that read it.
        writers: parameters and buffers that write to it, with the axis of the channels.
        factors: vectors that are multiplied into writers before.
        untied: name of a writer that something else reads too -> the nodes that write with it, which get a copy, and the others.
        behind: paths of layer norms that write to it themselves.
        reason: why its mean matters; "" where it does not.
    """

    norms: set[str] = field(default_factory=set)
    writers: dict[fx.Node, int] = field(default_factory=dict)
    factors: list[Factor] = field(default_factory=list)
    untied: dict[str, tuple[list[fx.Node], list[fx.Node]]] = field(default_factory=dict)
    behind: set[str] = field(default_factory=set)
    reason: str = ""


def find_streams(graph: fx.Graph, norms: list[LayerNorm]) -> list[Stream]:
    """Return the streams that the norms read, in the order of the graph; a norm that reads two streams joins their fate."""
    reads = [place for norm in norms for place in norm.reads]
    readers: dict[fx.Node, dict[fx.Node, str]] = {}  # input -> node inside a norm -> path of the norm
    for norm in norms:
        for entry, _ in norm.reads:
            readers.setdefault(entry, {}).update(dict.fromkeys(norm.inside, norm.path))
    streams: list[Stream] = []
    seen: set[Place] = set()
    for place in reads:
        if place not in seen:
            walk = _Walk(graph, readers, {node: norm.path for norm in norms for node in norm.inside})
            walk.follow(place)
            seen |= set(walk.places.items())
            streams.append(walk.stream)
    _share_fates(streams)
    return streams


def _share_fates(streams: list[Stream]) -> None:
    """A norm has one form: what keeps one of its streams keeps the other. So does what keeps the stream that it writes to.

    The channels of a norm that writes to a stream are channels of that stream: while they stay, nothing is gained by another form.
    """
    while True:
        kept = {path: stream.reason for stream in streams if stream.reason for path in stream.norms}
        kept |= {path: f"its norm writes to a stream that stays: {stream.reason}" for stream in streams for path in stream.behind}
        late = [(stream, kept[path]) for stream in streams if not stream.reason for path in sorted(stream.norms) if path in kept]
        if not late:
            return
        for stream, reason in late:
            stream.reason = reason


class _Walk:
    """From one place to all whose mean must be zero with it."""

    def __init__(
        self, graph: fx.Graph, readers: Mapping[fx.Node, Mapping[fx.Node, str]], inside: Mapping[fx.Node, str]
    ) -> None:
        self.stream = Stream()
        self._inside = inside
        self.places: dict[fx.Node, int] = {}
        self._readers = readers
        self._twins: dict[str, list[fx.Node]] = {}  # a tensor may be read by several nodes
        for node in graph.nodes:
            if node.op == "get_attr":
                self._twins.setdefault(str(node.target), []).append(node)
        self._scaled: set[fx.Node] = set()
        self._tables: dict[str, tuple[list[fx.Node], list[fx.Node]]] = {}  # parameter -> what writes with it, what reads it otherwise

    def follow(self, start: Place) -> None:
        """Walk up and down from ``start``; the first reason against it stays."""
        work = [start]
        while work:
            node, axis = work.pop()
            if node in self.places:
                if self.places[node] != axis:
                    self._refuse(node, "two of its axes are channels")
                continue
            self.places[node] = axis
            work += self._up(node, axis)
            work += self._down(node, axis)
        self.stream.untied = {name: found for name, found in self._tables.items() if found[1]}

    def _refuse(self, node: fx.Node, reason: str) -> None:
        where = module_path(node)
        self.stream.reason = self.stream.reason or (f"{reason} in {where}" if where else reason)

    def _up(self, node: fx.Node, axis: int) -> list[Place]:
        if node.op == "get_attr":
            self.stream.writers[node] = axis
            return [(twin, axis) for twin in self._twins[str(node.target)] if twin is not node]
        if node.op == "placeholder":
            self._refuse(node, f"an input of the network ({node.name}) is added to it")
            return []
        try:
            return sources(node, axis)
        except NotLinear as error:
            scaled = self._scaled_writer(node, axis)
            if scaled is None:
                self._refuse(node, str(error))
                self.stream.behind |= {self._inside[node]} if node in self._inside else set()
            return scaled or []

    def _down(self, node: fx.Node, axis: int) -> list[Place]:
        found: list[Place] = []
        others: list[fx.Node] = []
        for user in node.users:
            path = self._readers.get(node, {}).get(user)
            if path is not None:
                self.stream.norms.add(path)
            elif user in self._scaled or not _is_tensor(user) or _reads_form_only(user, node):
                continue
            elif (place := _output_axis(user, node, axis)) is not None:
                found.append((user, place))
            elif user.op == "output":
                self._refuse(node, "an output of the network reads it")
            elif self._scaled_writer(user, axis) is None:
                others.append(user)
        if node.op == "get_attr":
            writing, reading = self._tables.setdefault(str(node.target), ([], []))
            writing += [user for user, _ in found]
            reading += others
        elif others:
            self._refuse(others[0], f"{operator_name(others[0])} reads it")
        return found

    def _scaled_writer(self, node: fx.Node, axis: int) -> list[Place] | None:
        """Return what is multiplied with a vector, channel by channel, where that can go into the parameters that write it."""
        if operator_name(node) != "mul" or len(node.args) != 2:
            return None
        if node in self._scaled:
            return []
        for data, vector in (node.args, node.args[::-1]):
            if not (isinstance(vector, fx.Node) and vector.op == "get_attr" and isinstance(data, fx.Node)):
                continue
            alone = len(vector.users) == 1 and len(self._twins[str(vector.target)]) == 1
            place = axis - len(shape_of(node) or ()) + len(shape_of(data) or ())
            writers = _only_writers(data, place)
            if alone and max(shape_of(vector) or (0,)) == _count(vector) and writers:
                self._scaled.add(node)
                self.stream.factors.append(Factor(vector, tuple(writers)))
                return [(data, place)]
        return None


def _is_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.op == "output" or isinstance(value, (Tensor, list, tuple))


def _reads_form_only(user: fx.Node, node: fx.Node) -> bool:
    """Whether an operator looks at the type and shape of a tensor, not at its numbers."""
    name = operator_name(user)
    return name.endswith("_like") or name.startswith("new_") or (name == "type_as" and user.args[0] is not node)


def _count(node: fx.Node) -> int:
    value: Any = node.meta["val"]
    return int(value.numel())


def _output_axis(user: fx.Node, node: fx.Node, axis: int) -> int | None:
    """Return the axis of a user's output whose mean is made of that of ``node`` along ``axis``; None where there is none."""
    value = user.meta.get("val")
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    for place in range(first.dim() if isinstance(first, Tensor) else 0):
        try:
            if (node, axis) in sources(user, place):
                return place
        except NotLinear:
            continue
    return None


def _only_writers(node: fx.Node, axis: int) -> list[Place]:
    """Parameters that alone make a value and make nothing else, with the axes of its channels; none where that is not so."""
    found: list[Place] = []
    work: list[Place] = [(node, axis)]
    while work:
        item, place = work.pop()
        if len(item.users) != 1:
            return []
        if item.op == "get_attr":
            found.append((item, place))
            continue
        if item.op != "call_function":
            return []
        try:
            work += sources(item, place)
        except NotLinear:
            return []
    return found
