"""What a picture of a network shows at first: plain steps folded, runs of equal blocks stacked, containers that never run left out.

In: modules, the nodes that they hold, edges between nodes, and which nodes are *quiet*: they have no family, no parameter and no cost, and
nothing that flows to them has (masks, positions, shape arithmetic). Out: a tree of boxes with groups in it. By paths and equal subgraphs
alone; no name of a class or operator decides anything. Pure; no widget.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

LEAST_RUN = 3
"""Blocks of one structure that make a stack."""

Pair = tuple[int, int]
ROOT, MODULE, STACK, QUIET, LEAF = "root", "module", "stack", "quiet", "leaf"


@dataclass(eq=False)
class Item:
    """A vertex of a picture: a node, a module, or a group of several.

    Attributes:
        kind: "root", "module", "stack" (equal blocks, one after the other or side by side), "quiet" (plain steps), or "leaf".
        at: position of the module or node; -1 of a group.
        label: what stands in its head: a path from the box around it.
        items: what a box holds, in order of execution.
        edges: pairs of positions in ``items``: where data flow between them.
        inside: positions in ``items`` of what is fed from outside, and :attr:`outside` of what is read there.
    """

    kind: str
    at: int = -1
    label: str = ""
    items: list[Item] = field(default_factory=list)
    parent: Item | None = None
    place: int = 0
    edges: set[Pair] = field(default_factory=set)
    inside: set[int] = field(default_factory=set)
    outside: set[int] = field(default_factory=set)
    quiet: bool = False

    def leaves(self) -> Iterator[int]:
        """Nodes in it."""
        if self.kind == LEAF:
            yield self.at
        for item in self.items:
            yield from item.leaves()

    def boxes(self) -> Iterator[Item]:
        """This box and every one in it, the outer first."""
        if self.kind != LEAF:
            yield self
            for item in self.items:
                yield from item.boxes()


@dataclass(frozen=True)
class Picture:
    """What :func:`find_structure` reads.

    Attributes:
        paths: dotted path of each module, the root first.
        called: for each module whether it runs as one; what it holds belongs to the module around it otherwise.
        module: position in ``paths`` of each node.
        nodes: nodes of this picture, in order of execution.
        edges: pairs of nodes.
        operators: a word for what each node does; equal words, equal operators.
        quiet: nodes that carry nothing.
        values: for each node what it gives: "b" truth values, "i" whole numbers, "f" other numbers, "" no tensor.
    """

    paths: Sequence[str]
    called: Sequence[bool]
    module: Sequence[int]
    nodes: Sequence[int]
    edges: Sequence[Pair]
    operators: Sequence[str]
    quiet: Collection[int]
    values: Sequence[str]


def quiet_nodes(nodes: Sequence[int], edges: Iterable[Pair], carrying: Collection[int], values: Sequence[str]) -> set[int]:
    """Return the nodes that carry nothing, and that nothing which carries flows to; a size of what carries is quiet.

    Args:
        nodes: in order of execution.
        edges: pairs of nodes.
        carrying: nodes with a family, a parameter or a cost, and inputs that are data.
        values: as in :class:`Picture`.
    """
    above: dict[int, list[int]] = defaultdict(list)
    for source, target in edges:
        above[target].append(source)
    flows: set[int] = set()
    for node in nodes:
        if node in carrying or (values[node] and any(a in flows for a in above[node])):
            flows.add(node)
    return set(nodes) - flows


def find_structure(picture: Picture) -> Item:
    """Return the tree of a picture, stacks and quiet groups in it."""
    root = _tree(picture)
    _lift(root, picture.edges)
    _note_quiet(root, picture.quiet)
    level = _levels(picture)
    known: dict[Any, int] = {}
    for box in list(root.boxes()):
        runs = _runs(box, lambda item: _shape(item, picture.operators, known))
        _group(box, [*((STACK, run) for run in runs), *((QUIET, part) for part in _clusters(box, level))], picture)
    _lift(root, picture.edges)
    return root


def groups_of(root: Item) -> list[dict[str, Any]]:
    """Return every group of a tree as plain data: kind, label, and the positions of its nodes and modules."""
    return [
        {
            "kind": box.kind, "label": box.label,
            "nodes": [item.at for item in box.items if item.kind == LEAF],
            "modules": [item.at for item in box.items if item.kind == MODULE],
        }
        for box in root.boxes() if box.kind in (STACK, QUIET)
    ]  # fmt: skip


# -- the tree -----------------------------------------------------------------------------------------------------------------------------


def _tree(picture: Picture) -> Item:
    index = {path: i for i, path in enumerate(picture.paths)}
    boxes: dict[int, Item] = {0: Item(ROOT, 0)}

    def box(module: int) -> Item:
        if module not in boxes:
            above = _around(picture, module, index)
            start = len(picture.paths[above]) + 1 if above else 0
            made = boxes[module] = Item(MODULE, module, picture.paths[module][start:])
            box(above).items.append(made)
        return boxes[module]

    for node in picture.nodes:
        module = picture.module[node]
        box(module if picture.called[module] else _around(picture, module, index)).items.append(Item(LEAF, node))
    return boxes[0]


def _around(picture: Picture, module: int, index: Mapping[str, int]) -> int:
    """The nearest module around one that runs as a module itself."""
    path = picture.paths[module]
    while path:
        path = path.rpartition(".")[0]
        if path in index and picture.called[index[path]]:
            return index[path]
    return 0


def _lift(root: Item, edges: Iterable[Pair]) -> None:
    """Put every edge into the box where both ends meet; on the way it leaves, or enters, the boxes between."""
    depth: dict[Item, int] = {root: 0}
    leaves: dict[int, Item] = {}
    for box in root.boxes():
        box.edges, box.inside, box.outside = set(), set(), set()
        for place, item in enumerate(box.items):
            item.parent, item.place, depth[item] = box, place, depth[box] + 1
            if item.kind == LEAF:
                leaves[item.at] = item
    for source, target in edges:
        if source in leaves and target in leaves and source != target:
            _lift_one(leaves[source], leaves[target], depth)


def _lift_one(a: Item, b: Item, depth: Mapping[Item, int]) -> None:
    while a.parent is not b.parent:
        if depth[a] >= depth[b]:
            assert a.parent is not None
            a.parent.outside.add(a.place)
            a = a.parent
        else:
            assert b.parent is not None
            b.parent.inside.add(b.place)
            b = b.parent
    if a is not b and a.parent is not None:
        a.parent.edges.add((a.place, b.place))


def _note_quiet(item: Item, quiet: Collection[int]) -> bool:
    item.quiet = item.at in quiet if item.kind == LEAF else sum(_note_quiet(child, quiet) for child in item.items) == len(item.items)
    return item.quiet


# -- groups -------------------------------------------------------------------------------------------------------------------------------


def _levels(picture: Picture) -> dict[int, int]:
    """How often what leads to each node turns from carrying to quiet: quiet nodes of one level never lie around a carrying one."""
    above: dict[int, list[int]] = defaultdict(list)
    for source, target in picture.edges:
        above[target].append(source)
    level: dict[int, int] = {}
    for node in picture.nodes:
        quiet = node in picture.quiet
        from_above = [level[a] + (quiet and a not in picture.quiet and bool(above[a])) for a in above[node] if a in level]
        level[node] = max(from_above, default=0)
    return level


def _clusters(box: Item, level: Mapping[int, int]) -> list[list[Item]]:
    """Quiet items of a box that hang together, at least two."""
    height = {i: max(level[leaf] for leaf in item.leaves()) for i, item in enumerate(box.items) if item.quiet}
    head = {i: i for i in height}

    def find(i: int) -> int:
        while head[i] != i:
            head[i] = head[head[i]]
            i = head[i]
        return i

    for a, b in box.edges:
        if height.get(a, -1) == height.get(b, -2):
            head[find(max(a, b))] = find(min(a, b))
    together: dict[int, list[Item]] = defaultdict(list)
    for i in height:
        together[find(i)].append(box.items[i])
    return [items for items in together.values() if len(items) > 1 and len(items) < len(box.items)]


def _shape(item: Item, operators: Sequence[str], known: dict[Any, int]) -> int:
    """A number for what an item is, but for names, sizes and quiet steps: the same for equal subgraphs."""
    if item.kind == LEAF:
        return known.setdefault(operators[item.at], len(known))
    if item not in known:
        loud = [i for i, child in enumerate(item.items) if not child.quiet]
        position = {i: k for k, i in enumerate(loud)}
        inner = tuple(_shape(item.items[i], operators, known) for i in loud)
        links = tuple(sorted((position[a], position[b]) for a, b in item.edges if a in position and b in position))
        known[item] = known.setdefault((inner, links), len(known))
    return known[item]


def _runs(box: Item, shape: Callable[[Item], int]) -> list[list[Item]]:
    """Blocks of one structure, one after the other: each feeds the next, or none does."""
    loud = [item for item in box.items if not item.quiet]
    runs: list[list[Item]] = []
    run: list[Item] = loud[:1]
    chained: bool | None = None
    for before, item in pairwise(loud):
        feeds = (before.place, item.place) in box.edges
        alike = _is_block(before) and _is_block(item) and shape(before) == shape(item)
        if alike and chained in (None, feeds):
            run.append(item)
            chained = feeds
        else:
            runs.append(run)
            run, chained = [item], None
    return [run for run in [*runs, run] if len(run) >= LEAST_RUN]


def _is_block(item: Item) -> bool:
    return item.kind == MODULE and sum(not child.quiet for child in item.items) > 1


def _group(box: Item, parts: Sequence[tuple[str, list[Item]]], picture: Picture) -> None:
    """Put items of a box into boxes of their own, each where its first stood."""
    group_of = {item: (kind, items) for kind, items in parts for item in items}
    kept: list[Item] = []
    for item in box.items:
        kind, items = group_of.get(item, ("", []))
        if not items:
            kept.append(item)
        elif item is items[0]:
            label = _stack_label(items) if kind == STACK else _quiet_label(items, picture)
            kept.append(Item(kind, label=label, items=items, quiet=kind == QUIET))
    box.items = kept


def _stack_label(blocks: Sequence[Item]) -> str:
    """What the labels of the blocks share before their last part, else the first and the last of them."""
    heads = {block.label.rpartition(".")[0] for block in blocks}
    first, last = blocks[0].label, blocks[-1].label
    return heads.pop() if len(heads) == 1 and heads != {""} else f"{first} … {last}"


def _quiet_label(items: Sequence[Item], picture: Picture) -> str:
    """Words for what leaves these steps: masks come from truth values, positions from whole numbers."""
    inside = {leaf for item in items for leaf in item.leaves()}
    above: dict[int, list[int]] = defaultdict(list)
    left: set[int] = set()
    for source, target in picture.edges:
        if target in inside:
            above[target].append(source)
        elif source in inside:
            left.add(source)
    kinds: dict[int, str] = {}  # of numbers that a node is made of, the most telling first
    for node in sorted(inside):
        own = {picture.values[node], *(kinds[a] for a in above[node] if a in kinds)}
        kinds[node] = next((kind for kind in "bif" if kind in own), "")
    words = {"b": "mask", "i": "positions", "f": "constants", "": "sizes"}
    return ", ".join(sorted({words[kinds[node]] for node in left or inside}))
