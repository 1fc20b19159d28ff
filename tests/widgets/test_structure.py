"""What the first view folds, stacks and opens: by paths and equal subgraphs, on small pictures and on the networks that people bring."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.bench.first_view import NETS, AttentionUNet, analysed
from geta_nb.widgets.exports import static_svg
from geta_nb.widgets.first_dot import first_dot
from geta_nb.widgets.first_layout import Room, lay_out
from geta_nb.widgets.first_view import FirstView, first_view, in_sight
from geta_nb.widgets.graph_data import first_tree, graph_data
from geta_nb.widgets.structure import LEAF, MODULE, QUIET, STACK, Item, Picture, find_structure, groups_of, quiet_nodes
from tests.display.checks import check_svg
from tests.zoo.catalogue import ZOO

SVG = "{http://www.w3.org/2000/svg}"


@cache
def net(name: str) -> gt.GETA:
    """A network of the pictures, analysed once; tests only read it."""
    if name != "unet":
        pytest.importorskip("transformers", reason="the extra 'bench' is not installed")
    return analysed(name)


def picture(blocks: list[list[str]], *, chained: bool = True, called: bool = True) -> Picture:
    """Blocks in a list ``m``, each a chain of operators."""
    paths = ["", "m", *(f"m.{i}" for i in range(len(blocks)))]
    module, operators, edges = [0], ["input"], []
    last = 0
    for i, block in enumerate(blocks):
        for k, operator in enumerate(block):
            source = last if k or chained else 0
            edges.append((source, len(operators)))
            last = len(operators)
            module.append(2 + i)
            operators.append(operator)
    runs, values = [True, called, *[True] * len(blocks)], ["f"] * len(module)
    return Picture(paths, runs, module, range(len(module)), edges, operators, set(), values)


def kinds(box: Item) -> list[tuple[str, str, int]]:
    return [(item.kind, item.label, len(item.items)) for item in box.items]


def test_equal_blocks_one_after_the_other_are_a_stack() -> None:
    root = find_structure(picture([["linear", "relu"]] * 4, called=False))
    assert kinds(root) == [(LEAF, "", 0), (STACK, "m", 4)]
    assert [block.label for block in root.items[1].items] == ["m.0", "m.1", "m.2", "m.3"]
    inside = find_structure(picture([["linear", "relu"]] * 4)).items[1]
    assert kinds(inside) == [(STACK, "0 … 3", 4)]


def test_equal_blocks_side_by_side_are_a_stack() -> None:
    root = find_structure(picture([["linear", "relu"]] * 4, chained=False, called=False))
    assert kinds(root)[1] == (STACK, "m", 4)


@pytest.mark.parametrize(("blocks", "runs"), [
    ([["linear", "relu"]] * 2, []),
    ([["linear"]] * 6, []),
    ([["linear", "relu"], ["linear", "gelu"]] * 3, []),
    ([["linear", "relu"]] * 3 + [["conv", "relu"]] * 4, [3, 4]),
    ([["linear", "relu"]] * 3 + [["conv", "relu"]] + [["linear", "relu"]] * 3, [3, 3]),
])  # fmt: skip
def test_only_runs_of_three_equal_blocks_are_stacks(blocks: list[list[str]], runs: list[int]) -> None:
    root = find_structure(picture(blocks, called=False))
    assert [len(item.items) for item in root.items if item.kind == STACK] == runs


def test_a_quiet_step_in_one_block_does_not_tell_it_from_the_others() -> None:
    blocks = [["linear", "expand", "relu"], ["linear", "relu"], ["linear", "relu"]]
    assert not [item for item in find_structure(picture(blocks, called=False)).items if item.kind == STACK]
    paths, edges = ["", "m", "m.0", "m.1", "m.2"], [(0, 1), (1, 3), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
    operators = ["input", "linear", "expand", "relu", "linear", "relu", "linear", "relu"]
    module = [0, 2, 2, 2, 3, 3, 4, 4]
    root = find_structure(Picture(paths, [True, False, True, True, True], module, range(8), edges, operators, {2}, ["f"] * 8))
    assert [len(item.items) for item in root.items if item.kind == STACK] == [3]


def test_the_first_block_is_like_the_others_though_an_input_feeds_it() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    geta = gt.GETA(nn.TransformerEncoder(layer, 4).eval(), torch.zeros(1, 5, 16))
    (stack,) = (box for box in first_tree(geta)[2].boxes() if box.kind == STACK)
    assert [block.label for block in stack.items] == [f"layers.{i}" for i in range(4)]


def test_blocks_of_other_widths_are_one_stack() -> None:
    widths = [(8, 16), (16, 12), (12, 4)]
    model = nn.Sequential(*[nn.Sequential(nn.Linear(i, o), nn.ReLU()) for i, o in widths], nn.Linear(4, 2))
    view = first_view(gt.GETA(model, torch.randn(2, 8)))
    (stack,) = stacks(view)
    assert "4–16 wide" in view.boxes[stack].below


def test_what_only_sizes_reach_is_quiet_and_what_data_reach_is_not() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (5, 3), (3, 6)]
    assert quiet_nodes(range(7), edges, {1}, ["f", "f", "f", "f", "", "i", "f"]) == {0, 4, 5}


def test_steps_around_a_carrying_node_are_no_single_vertex() -> None:
    """0 -> 1 (quiet) -> 2 (carries) -> 3 (a size) -> 4 (quiet), and 1 -> 4: folded into one, they would close a cycle."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 4), (4, 5), (2, 5)]
    values = ["i", "i", "f", "", "i", "f"]
    quiet = quiet_nodes(range(6), edges, {2, 5}, values)
    assert quiet == {0, 1, 3, 4}
    root = find_structure(Picture([""], [True], [0] * 6, range(6), edges, list("abcdef"), quiet, values))
    assert sorted(tuple(item.leaves()) for item in root.items if item.kind == QUIET) == [(0, 1), (3, 4)]


def acyclic(box: Item) -> bool:
    """Whether data flow one way between what is directly in a box."""
    waiting = {i: {a for a, b in box.edges if b == i} for i in range(len(box.items))}
    while ready := [i for i, sources in waiting.items() if not sources]:
        for i in ready:
            del waiting[i]
        for sources in waiting.values():
            sources.difference_update(ready)
    return not waiting


@pytest.mark.parametrize("name", ["vgg7", "resnet20", "lstm", "bert_sdpa", "gpt2_sdpa", "llama_sdpa", "unet"])
def test_groups_hold_each_node_once_and_close_no_cycle(name: str) -> None:
    entry = ZOO[name]
    geta = gt.GETA(entry.build(), entry.inputs(2), example_kwargs=entry.kwargs(2))
    layers, _, root = first_tree(geta)
    assert sorted(root.leaves()) == sorted(layers.members["QADG"])
    for box in root.boxes():
        assert box.kind not in (QUIET, STACK) or len(box.items) > 1
        assert acyclic(box) or any(item.kind == MODULE for item in box.items), "only modules may have closed a cycle before"
    for group in groups_of(root):
        assert set(group) == {"kind", "label", "nodes", "modules"} and group["label"]


def stacks(view: FirstView) -> list[Item]:
    return [box for box in view.root.boxes() if box.kind == STACK]


def test_bert_opens_on_its_layers_with_one_mask() -> None:
    view = first_view(net("bert"))
    (stack,) = stacks(view)
    assert len(stack.items) == 12 and view.boxes[stack].head == "encoder.layer  × 12"
    assert "32–128 wide · 16 bit" in view.boxes[stack].below
    seen = [view.boxes[item].head for item in in_sight(view, view.root)]
    assert seen.count("mask") == 1 and len(seen) <= 20
    assert stack in view.opened and stack.items[0] in view.opened
    assert {"self", "intermediate", "output"} <= set(seen), "one block shows what it is made of"


def test_llama_opens_on_its_layers() -> None:
    view = first_view(net("llama"))
    (stack,) = stacks(view)
    assert len(stack.items) == 12
    seen = [view.boxes[item].head for item in in_sight(view, view.root)]
    assert {"embedding", "self_attn", "mlp", "norm", "mask, positions"} <= set(seen) and len(seen) <= 20


def test_a_unet_reads_in_the_order_of_its_data() -> None:
    data = graph_data(net("unet"))
    called = dict(zip(data["modules"]["path"], data["modules"]["called"], strict=True))
    assert not any(called[path] for path in ("down", "ds", "up", "us")) and all(called[path] for path in ("down.0", "ds.0", "mid"))
    view = first_view(net("unet"))
    order = [item.label or view.boxes[item].head for item in view.root.items]
    assert [label for label in order if label.startswith(("down", "ds"))] == [
        "down.0.res", "ds.0", "down.1.res", "ds.1", "down.2", "ds.2", "down.3",
    ]  # fmt: skip


def corners(room: Room, at: tuple[float, float] = (0.0, 0.0)) -> Iterator[tuple[Item, float, float]]:
    for item, (x, y) in zip(room.shown, room.corners, strict=True):
        yield item, at[0] + x, at[1] + y
        if item in room.rooms:
            yield from corners(room.rooms[item], (at[0] + x, at[1] + y))


@pytest.mark.parametrize("name", NETS)
def test_no_two_boxes_of_a_picture_overlap(name: str) -> None:
    view = first_view(net(name))
    room = lay_out(view.root, view.opened, lambda item: view.boxes[item].size, lambda item: 0.0)
    rooms = [room]
    for one in rooms:
        rooms += one.rooms.values()
        sizes = [one.rooms[item].size if item in one.rooms else view.boxes[item].size for item in one.shown]
        for i, ((x, y), (w, h)) in enumerate(zip(one.corners, sizes, strict=True)):
            assert x >= -1e-6 and y >= -1e-6 and x + w <= one.size[0] + 1e-6 and y + h <= one.size[1] + 1e-6
            for (a, b), (v, t) in zip(one.corners[:i], sizes[:i], strict=True):
                assert not (x < a + v - 1e-6 and a < x + w - 1e-6 and y < b + t - 1e-6 and b < y + h - 1e-6)


def test_a_unet_is_drawn_as_a_u() -> None:
    view = first_view(net("unet"))
    room = lay_out(view.root, view.opened, lambda item: view.boxes[item].size, lambda item: 0.0)
    at = {item.label or view.boxes[item].below: (x, y) for item, x, y in corners(room)}
    assert at["down.0.res"][1] == pytest.approx(at["cat_3 · 2 × 24 × 32 × 32"][1], abs=2) and at["down.0.res"][0] < at["up.3.res"][0]
    assert at["up.3.res"][1] < at["up.0"][1] and at["down.0.res"][1] < at["down.3"][1]


@pytest.mark.parametrize("name", NETS)
def test_the_static_picture_shows_the_first_view_the_same_each_time(name: str) -> None:
    drawn = static_svg(net(name), dot=None)
    check_svg(drawn)
    assert drawn == static_svg(net(name), dot=None)
    words = " ".join(text.text or "" for text in ElementTree.fromstring(drawn).iter(f"{SVG}text"))
    view = first_view(net(name))
    for item in in_sight(view, view.root):
        assert view.boxes[item].head.split("…")[0] in words


@pytest.mark.parametrize("name", NETS)
def test_graphviz_is_told_every_box_in_sight_and_only_edges_between_them(name: str) -> None:
    view = first_view(net(name))
    source = first_dot(view, lambda values: ", ".join(values), [])
    told = re.findall(r"^(n\d+) \[", source, flags=re.M)
    pairs = re.findall(r"^(n\d+) -> (n\d+)$", source, flags=re.M)
    seen = list(in_sight(view, view.root))
    assert len(told) == len(set(told)) == len(seen) and {end for pair in pairs for end in pair} == set(told)
    assert source.count("subgraph") == len(view.opened) - 1
    assert all(int(a[1:]) < int(b[1:]) or (b, a) not in pairs for a, b in pairs), "no edge leads back into the block that is shown"


def test_with_room_for_all_everything_is_open() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)])
    geta = gt.GETA(model, torch.randn(2, 4))
    few = first_view(geta)
    assert len(list(in_sight(few, few.root))) == len(geta.qadg.vertices)
    unet = gt.GETA(AttentionUNet().eval(), torch.zeros(1, 3, 32, 32))
    many = first_view(unet, most=500)
    assert len(list(in_sight(many, many.root))) == len(unet.qadg.vertices)


def test_the_picture_in_the_documents_is_what_is_drawn() -> None:
    kept = Path(__file__).resolve().parents[2] / "docs" / "images" / "first_view_unet.svg"
    assert kept.read_text(encoding="utf-8") == static_svg(net("unet"), dot=None), "make first-view"
