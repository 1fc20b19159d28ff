"""A first view in the DOT language: a cluster for each open box, an edge wherever data flow between what is in sight.

In: a :class:`~geta_nb.widgets.first_view.FirstView`. Out: DOT text. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from geta_nb.display.theme import HUE_OF_KIND
from geta_nb.widgets.first_layout import shown_items
from geta_nb.widgets.first_view import FirstView, in_sight
from geta_nb.widgets.structure import LEAF, STACK, Item

Write = Callable[[Mapping[str, str]], str]
Blocks = tuple[tuple[Item, int], ...]


def first_dot(view: FirstView, write: Write, head: Sequence[str]) -> str:
    """Return a first view as DOT.

    Args:
        view: what to draw.
        write: attributes, as DOT has them.
        head: statements about the whole graph.
    """
    names = {item: f"n{i}" for i, item in enumerate(in_sight(view, view.root))}
    names |= {item: f"cluster_{i}" for i, item in enumerate(box for box in view.root.boxes() if box in view.opened)}
    ends: dict[int, tuple[Item, Blocks]] = {}
    _find_ends(view, view.root, view.root, (), ends)
    pairs: dict[tuple[str, str], None] = {}
    for a, b in view.edges:
        (source, around), (target, within) = ends[a], ends[b]
        if source is not target and not _between_blocks(around, within):
            pairs[names[source], names[target]] = None
    lines = [f"{a} -> {b}\n" for a, b in pairs]
    return "".join(["digraph {\n", *head, *_statements(view, view.root, names, write), *lines, "}\n"])


def _find_ends(view: FirstView, item: Item, seen: Item, blocks: Blocks, ends: dict[int, tuple[Item, Blocks]]) -> None:
    """Note for each node what stands for it in the picture; the parts of a hidden block are those of the block that is shown."""
    while item.kind == LEAF and seen in view.opened:
        seen = shown_items(seen)[0]
    if seen not in view.opened:
        ends.update((leaf, (seen, blocks)) for leaf in item.leaves())
        return
    for i, child in enumerate(item.items):
        if seen.kind == STACK:
            _find_ends(view, child, seen.items[0], (*blocks, (seen, i)), ends)
        else:
            _find_ends(view, child, seen.items[min(i, len(seen.items) - 1)], blocks, ends)


def _between_blocks(one: Blocks, other: Blocks) -> bool:
    """Whether an edge runs from one block of a stack to another."""
    places = dict(one)
    return any(places.get(stack, place) != place for stack, place in other)


def _statements(view: FirstView, box: Item, names: Mapping[Item, str], write: Write) -> Iterator[str]:
    for item in shown_items(box):
        known = view.boxes[item]
        badges = f"   {' '.join(words for _, words in known.badges)}" if known.badges else ""
        look = {"label": f"{known.head}{badges}\n{known.below}", "tooltip": known.title}
        if item in view.opened:
            look |= {"style": "rounded", "color": "#9a9a9a", "fontname": "Helvetica", "fontsize": "11"}
            yield f"subgraph {names[item]} {{\ngraph [{write(look)}]\n"
            yield from _statements(view, item, names, write)
            yield "}\n"
        else:
            colour = HUE_OF_KIND[known.kind]
            look |= {"color": colour} | ({"style": "rounded,dashed"} if item.quiet else {"fillcolor": f"{colour}26"})
            yield f"{names[item]} [{write(look)}]\n"
