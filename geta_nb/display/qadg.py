"""Views of the folded graph: boxes with quantizer badges, layered from input to output, and the table of folded branches.

A graph of more than :data:`MAX_BOXES` vertices is drawn by module, at the deepest level that fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from geta_nb.display.drawing import Point, fmt, group, legend, path, picture, rect, text, text_width
from geta_nb.display.layout import layered
from geta_nb.display.markup import Number, cards, details, figure, fragment, name, table
from geta_nb.display.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from geta_nb.display.wording import bits, clean, count, plain_operator, plural, shape_text, shorten

MAX_BOXES = 300
Bits = Mapping[str, float]
_MARKS = (("W", "weight_quantizer"), ("A", "input_quantizer"))
_LINE = 15.0

_KINDS = {
    BLUE: (
        "multiplies",
        {
            "conv1d",
            "conv2d",
            "conv3d",
            "convolution",
            "linear",
            "addmm",
            "mm",
            "bmm",
            "matmul",
            "baddbmm",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
            "scaled_dot_product_attention",
            "embedding",
        },
    ),
    GREEN: (
        "normalises",
        {
            "batch_norm",
            "layer_norm",
            "group_norm",
            "instance_norm",
            "rms_norm",
            "native_layer_norm",
            "native_group_norm",
            "native_batch_norm",
            "_native_batch_norm_legit_no_training",
        },
    ),
    ORANGE: (
        "activates",
        {
            "relu",
            "relu_",
            "gelu",
            "silu",
            "silu_",
            "sigmoid",
            "tanh",
            "hardswish",
            "hardswish_",
            "hardsigmoid",
            "hardtanh",
            "hardtanh_",
            "leaky_relu",
            "elu",
            "mish",
            "softmax",
            "_softmax",
            "softplus",
            "relu6",
            "prelu",
        },
    ),
    PURPLE: ("joins", {"add", "add_", "sub", "mul", "mul_", "div", "cat", "stack", "maximum", "minimum"}),
}
_KIND_OF = {operator: kind for kind, (_, operators) in _KINDS.items() for operator in operators}
KIND_WORDS = {**{kind: words for kind, (words, _) in _KINDS.items()}, SKY: "input, output", GREY: "other", VERMILION: "quantizer, bits"}
_ENDS = {"placeholder", "input", "output", "get_attr", "parameter", "constant"}


@dataclass(frozen=True)
class Box:
    """What is drawn of one vertex or, collapsed, of one module: two lines of text, badges and a tooltip; and names of the vertices."""

    head: str
    below: str
    kind: str
    badges: tuple[tuple[str, str], ...]
    title: str
    members: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in pixels."""
        badges = sum(text_width(words, small=True) + 12 for _, words in self.badges)
        return max(text_width(self.head) + badges, text_width(self.below, small=True)) + 22, 2 * _LINE + 6


def operator_kind(operator: object) -> str:
    """Return the theme class of an operator, by its exact name (``aten.conv2d.default`` and ``conv2d`` are one)."""
    parts = clean(operator).split(".")
    base = parts[1] if parts[0] == "aten" and len(parts) > 1 else parts[0]
    return SKY if base in _ENDS else _KIND_OF.get(base, GREY)


def qadg_text(qadg: Any) -> str:
    """Return counts of vertices, edges and branches."""
    kinds = Counter(clean(branch.kind) for branch in qadg.branches)
    folded = ", ".join(f"{many} {kind}" for kind, many in sorted(kinds.items()))
    branches = f"{plural(len(qadg.branches), 'branch')} folded" + (f" ({folded})" if folded else "")
    return f"QADG({plural(len(qadg.vertices), 'vertex')}, {plural(len(qadg.edges), 'edge')}, {branches})"


def vertex_text(vertex: Any) -> str:
    """Return one vertex: name, operator, shape, module and quantizers."""
    marks = "".join(
        f", {key.replace('_', ' ')} {shorten(getattr(vertex, key), 60)!r}" for _, key in _MARKS if getattr(vertex, key) is not None
    )
    where = f" in {shorten(vertex.module_path, 60)}" if vertex.module_path else ""
    return f"Vertex({shorten(vertex.name, 40)} = {shorten(vertex.operator, 40)} [{shape_text(vertex.shape)}]{where}{marks})"


def branch_text(branch: Any) -> str:
    """Return one folded branch: kind, ends and the number of raw nodes."""
    ends = f"{shorten(branch.entry, 50)} to {shorten(branch.exit, 50)}"
    return f"Branch({clean(branch.kind)}, {ends} at {shorten(branch.operator, 40)}, {plural(len(branch.nodes), 'raw node')})"


def qadg_html(qadg: Any) -> str:
    """Return the picture, the headline counts and the folded branches."""
    weights = sum(vertex.weight_quantizer is not None for vertex in qadg.vertices)
    inputs = sum(vertex.input_quantizer is not None for vertex in qadg.vertices)
    head = [
        ("vertices", count(len(qadg.vertices)), f"{count(len(qadg.edges))} edges"),
        ("folded branches", count(len(qadg.branches)), f"{count(sum(len(b.nodes) for b in qadg.branches))} raw nodes"),
        ("weight quantizers", count(weights), "attached"),
        ("input quantizers", count(inputs), "inserted"),
    ]
    rows = [
        (
            name(branch.name),
            clean(branch.kind),
            name(branch.operator),
            name(branch.entry),
            name(branch.exit),
            Number(count(len(branch.nodes))),
        )
        for branch in qadg.branches
    ]
    branches = table(("branch", "kind", "operator", "from", "to", "raw nodes"), rows, label="folded branches")
    caption = "folded graph; W and A mark weight and input quantizers"
    return fragment(
        "Quantization-aware dependency graph",
        cards(head),
        figure(qadg_svg(qadg), caption),
        details(f"Folded branches ({count(len(rows))})", branches) if rows else "",
    )


def qadg_svg(qadg: Any, *, max_boxes: int = MAX_BOXES, weight_bits: Bits | None = None, activation_bits: Bits | None = None) -> str:
    """Return the folded graph as a picture.

    Args:
        qadg: the graph.
        max_boxes: above so many vertices it is drawn by module.
        weight_bits: layer -> bits, written into the badge of its weight quantizer.
        activation_bits: the same for input quantizers.
    """
    boxes, edges = collapse(qadg, max_boxes, {"weight_quantizer": weight_bits or {}, "input_quantizer": activation_bits or {}})
    layout = layered([box.size for box in boxes], edges)
    used = {box.kind for box in boxes} | {kind for box in boxes for kind, _ in box.badges}
    kinds = [(kind, word) for kind, word in KIND_WORDS.items() if kind in used]
    drawn_legend, legend_end = legend(8, 16, kinds)
    dx, dy = 8.0, 32.0
    parts = [drawn_legend]
    parts += [draw_edge([(x + dx, y + dy) for x, y in route]) for route in layout.routes]
    parts += [_draw(box, x + dx, y + dy) for box, (x, y) in zip(boxes, layout.centres, strict=True)]
    return picture(max(layout.width + 2 * dx, legend_end), layout.height + dy + 8, parts, label=qadg_text(qadg))


def collapse(qadg: Any, max_boxes: int = MAX_BOXES, known: Mapping[str, Bits] | None = None) -> tuple[list[Box], list[tuple[int, int]]]:
    """Return boxes and edges between their indices: one box a vertex, or one a module at the deepest level that fits."""
    keys = [clean(vertex.name) for vertex in qadg.vertices]
    place: dict[str, tuple[str, ...]] = {key: (key,) for key in keys}
    if len(keys) > max_boxes:
        paths = {key: tuple(clean(v.module_path).split(".")) for key, v in zip(keys, qadg.vertices, strict=True)}
        deepest = max(map(len, paths.values()))
        depth = next((d for d in range(deepest, 0, -1) if len({p[:d] for p in paths.values()}) <= max_boxes), 1)
        place = {key: path[:depth] for key, path in paths.items()}
    members: dict[tuple[str, ...], list[Any]] = {}
    for key, vertex in zip(keys, qadg.vertices, strict=True):
        members.setdefault(place[key], []).append(vertex)
    index = {spot: i for i, spot in enumerate(members)}
    ends = [(clean(a), clean(b)) for a, b in qadg.edges]
    pairs = [(index[place[a]], index[place[b]]) for a, b in ends if a in place and b in place]
    boxes = [
        _box(vertices[0], known or {}) if len(vertices) == 1 else _module_box(".".join(spot), vertices)
        for spot, vertices in members.items()
    ]
    names = [tuple(str(vertex.name) for vertex in vertices) for vertices in members.values()]
    boxes = [replace(box, members=own) for box, own in zip(boxes, names, strict=True)]
    return boxes, list(dict.fromkeys((a, b) for a, b in pairs if a != b))


def _box(vertex: Any, known: Mapping[str, Bits]) -> Box:
    layers = {attribute: getattr(vertex, attribute) for _, attribute in _MARKS if getattr(vertex, attribute) is not None}
    badges = [(VERMILION, _badge(mark, known.get(key, {}).get(layers[key]))) for mark, key in _MARKS if key in layers]
    module, shape = clean(vertex.module_path), shape_text(vertex.shape)
    lines = [clean(vertex.name), f"operator: {clean(vertex.operator)}", f"module: {module or '(root)'}", f"shape: {shape or '–'}"]
    lines += [f"{key.replace('_', ' ')}: {clean(layer)}" for key, layer in layers.items()]
    lines += [f"family: {clean(vertex.family)}"] if vertex.family is not None else []
    below = " · ".join(part for part in (shorten(module or vertex.name, 24), shorten(shape, 24)) if part)
    return Box(shorten(plain_operator(vertex.operator), 28), below, operator_kind(vertex.operator), tuple(badges), " | ".join(lines))


def _module_box(module: str, vertices: Sequence[Any]) -> Box:
    badges = []
    for mark, attribute in _MARKS:
        many = sum(getattr(vertex, attribute) is not None for vertex in vertices)
        badges += [(VERMILION, f"{many} {mark}")] if many else []
    operators = Counter(plain_operator(vertex.operator) for vertex in vertices)
    title = f"{module or '(root)'} | " + ", ".join(f"{operator} × {many}" for operator, many in operators.most_common(12))
    kinds = Counter(operator_kind(vertex.operator) for vertex in vertices)
    kind = BLUE if kinds[BLUE] else kinds.most_common(1)[0][0]
    return Box(shorten(module or "(root)", 32), plural(len(vertices), "operator"), kind, tuple(badges), title)


def _badge(mark: str, width: float | None) -> str:
    return mark if width is None else f"{mark} {bits(width)}"


def _draw(box: Box, x: float, y: float) -> str:
    w, h = box.size
    left, top = x - w / 2, y - h / 2
    parts = [rect(left, top, w, h, kind="gv-box", radius=4), rect(left, top, w, h, kind=box.kind, opacity=0.13, radius=4)]
    parts.append(rect(left, top + 3, 4, h - 6, kind=box.kind))
    return group([*parts, *box_words(box, left, top, w)], title=box.title)


def box_words(box: Box, left: float, top: float, width: float) -> list[str]:
    """Return what stands in a box of this place and width: its two lines, and its badges from the right."""
    parts = [text(left + 11, top + 14, box.head, kind="gv-strong"), text(left + 11, top + 14 + _LINE, box.below, kind="gv-dim gv-small")]
    right = left + width - 5
    for kind, words in reversed(box.badges):
        room = text_width(words, small=True) + 8
        parts += [
            rect(right - room, top + 4, room, 13, kind=kind, radius=6),
            text(right - room + 4, top + 13.5, words, kind="gv-on gv-small"),
        ]
        right -= room + 3
    return parts


def draw_edge(route: Sequence[Point]) -> str:
    """Return an arrow along a route of the layout: straight through its ranks, bent between them."""
    (x0, y0), *rest = route
    commands = f"M{fmt(x0)} {fmt(y0)}"
    for k, (x, y) in enumerate(rest):
        middle = (y0 + y) / 2
        straight = k % 2 == 1 or abs(x - x0) < 0.5
        commands += f"L{fmt(x)} {fmt(y)}" if straight else f"C{fmt(x0)} {fmt(middle)} {fmt(x)} {fmt(middle)} {fmt(x)} {fmt(y)}"
        x0, y0 = x, y
    up = -1 if len(route) > 1 and route[-2][1] > y0 else 1
    head = f"M{fmt(x0)} {fmt(y0)}l-3.5 {fmt(-6 * up)}h7z"
    return path(commands, kind="gv-edge") + path(head, kind="gv-head")
