"""The first view of a network without a browser: what is folded, stacked and open when the explorer opens, and the words for each box.

In: a ``GETA``. Out: a :class:`FirstView`; ``first_picture`` draws it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from geta_nb.display.qadg import Box, collapse, operator_kind
from geta_nb.display.theme import BLUE, GREY
from geta_nb.display.wording import bit_range, clean, plural, shorten
from geta_nb.geta import GETA
from geta_nb.widgets.first_layout import shown_items
from geta_nb.widgets.graph_data import first_tree
from geta_nb.widgets.graph_layers import Layers, module_types, node_shape, operator_words
from geta_nb.widgets.structure import LEAF, MODULE, QUIET, ROOT, STACK, Item, Pair

MOST = 20
"""Boxes of a first view."""


@dataclass(frozen=True)
class FirstView:
    """A tree, what is open in it, and words for each item.

    Attributes:
        root: the tree, modules with one thing in them left out.
        opened: boxes that show what they hold; a stack shows its first block.
        boxes: head, second line, colour and badges of each item.
        edges: pairs of nodes.
    """

    root: Item
    opened: frozenset[Item]
    boxes: Mapping[Item, Box]
    edges: Sequence[Pair]


def first_view(geta: GETA, most: int = MOST) -> FirstView:
    """Return the first view of a network: open as far as the stacks, then while at most ``most`` boxes are in sight."""
    layers, facts, tree = first_tree(geta)
    root = fold(tree)
    types = module_types(geta.model, layers.modules)
    costs = {int(i) for i, known in facts["vertices"].items() if "k" in known}
    opened = frozenset(open_to_fit(root, most, costs, lambda item: types[item.at] if item.kind == MODULE else item.kind))
    known = {"weight_quantizer": geta.bit_widths(), "input_quantizer": geta.activation_bit_widths()}
    vertices, _ = collapse(geta.qadg, len(geta.qadg.vertices), known)
    of_vertex = dict(zip(layers.members["QADG"], zip(geta.qadg.vertices, vertices, strict=True), strict=True))
    boxes: dict[Item, Box] = {}
    for item in _all(root):
        if item.kind == LEAF:
            vertex, box = of_vertex[item.at]
            shape = node_shape(layers.nodes[item.at])
            below = (shorten(clean(item.label or vertex.name), 26), shape)
            boxes[item] = replace(
                box, head=shorten(operator_words(layers.nodes[item.at]), 28), below=" · ".join(part for part in below if part)
            )
        elif item.kind != ROOT:
            boxes[item] = _module_box(item, [of_vertex[i][0] for i in item.leaves()], types, layers)
            if item.kind == STACK:
                ranges = (_widths(item, facts), _bits([of_vertex[i][0] for i in item.leaves()], known["weight_quantizer"]))
                boxes[item] = replace(boxes[item], below=" · ".join(part for part in (boxes[item].below, *ranges) if part))
    return FirstView(root, opened, boxes, layers.edges["QADG"])


def fold(box: Item) -> Item:
    """Leave out every module that holds one thing: its name goes to what it holds."""
    for place, item in enumerate(box.items):
        kept = fold(item)
        kept.parent, kept.place, box.items[place] = box, place, kept
    if box.kind != MODULE or len(box.items) != 1 or box.items[0].kind == QUIET:
        return box
    child = box.items[0]
    child.label = f"{box.label}.{child.label}" if child.label else box.label
    return child


def open_to_fit(root: Item, most: int, costs: set[int], kind: Callable[[Item], str]) -> set[Item]:
    """Return the boxes to open: what is around stacks, their first blocks, then level by level those of one kind together.

    Args:
        root: the tree.
        most: boxes in sight.
        costs: nodes that cost something; a box without any stays closed where there are such.
        kind: a word for a box; equal words, opened together.
    """
    opened = {root}
    _open_stacks(root, opened)

    def frontier(box: Item) -> Iterator[Item]:
        for item in shown_items(box):
            if item in opened:
                yield from frontier(item)
            elif item.kind != LEAF and not item.quiet and (not costs or any(leaf in costs for leaf in item.leaves())):
                yield item

    def count(box: Item) -> int:
        return sum(1 + (count(item) if item in opened else 0) for item in shown_items(box))

    level, visible = list(frontier(root)), count(root)
    while level:
        kinds: dict[str, list[Item]] = {}
        for item in sorted(level, key=lambda one: one.parent is None or one.parent.kind != STACK):
            kinds.setdefault(kind(item), []).append(item)
        level = []
        for items in kinds.values():
            more = sum(len(shown_items(item)) for item in items)
            if visible + more <= most:
                visible += more
                opened.update(items)
                level += [inner for item in items for inner in frontier(item)]
    return opened


def _open_stacks(box: Item, opened: set[Item]) -> bool:
    if box.kind == STACK:
        opened.add(box)
        return True
    inside = [_open_stacks(item, opened) for item in box.items if item.kind != LEAF]
    if any(inside):
        opened.add(box)
    return any(inside)


def in_sight(view: FirstView, box: Item) -> Iterator[Item]:
    """Every closed box and vertex that is drawn in a box."""
    for item in shown_items(box):
        if item in view.opened:
            yield from in_sight(view, item)
        else:
            yield item


def _all(box: Item) -> Iterator[Item]:
    yield box
    for item in box.items:
        yield from _all(item)


def _module_box(item: Item, vertices: Sequence[Any], types: Sequence[str], layers: Layers) -> Box:
    kinds = Counter(operator_kind(vertex.operator) for vertex in vertices)
    kind = BLUE if kinds[BLUE] else max((hue for hue in kinds if hue != GREY), key=lambda hue: kinds[hue], default=GREY)
    label = clean(item.label)
    if item.kind == QUIET:
        return Box(label, f"{plural(len(vertices), 'step')}, no cost", GREY, (), label)
    if item.kind == MODULE:
        words = " · ".join(word for word in (types[item.at], str(len(vertices))) if word)
        return Box(label, words, kind, (), clean(layers.modules[item.at]))
    first, last = item.items[0].at, item.items[-1].at
    return Box(f"{label}  × {len(item.items)}", types[first], kind, (), f"{clean(layers.modules[first])} … {clean(layers.modules[last])}")


def _widths(item: Item, facts: Mapping[str, Any]) -> str:
    """Range of what the weights in a stack give out."""
    tensors = {t for leaf in item.leaves() for t in facts["vertices"].get(str(leaf), {}).get("t", ())}
    widths = [shape[0] for shape in (facts["tensors"][t][1] for t in tensors) if len(shape) > 1]
    return f"{bit_range((min(widths), max(widths)))} wide" if widths else ""


def _bits(vertices: Sequence[Any], known: Mapping[str, float]) -> str:
    widths = [known[v.weight_quantizer] for v in vertices if v.weight_quantizer in known]
    return f"{bit_range((min(widths), max(widths)))} bit" if widths else ""
