"""The explorer's data: every vertex in one module, edges between what there is, branches as they are folded, names as text."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.display.wording import clean
from geta_nb.widgets.budget_code import budget_code
from geta_nb.widgets.graph_data import budget_state, graph_data, live_state
from tests.display.dummies import HOSTILE
from tests.small_nets import IMAGES, ROWS, Residual, cnn
from tests.zoo.catalogue import ZOO

CASES = ("vgg7", "resnet20", "shared_conv", "lstm", "bert_sdpa", "gpt2_sdpa", "llama_sdpa")


def made(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> tuple[gt.GETA, dict[str, Any]]:
    geta = gt.GETA(model, inputs, **options)
    return geta, graph_data(geta)


@pytest.fixture(scope="module")
def both() -> tuple[gt.GETA, dict[str, Any]]:
    torch.manual_seed(0)
    return made(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True))


@cache
def of_zoo(name: str) -> tuple[gt.GETA, dict[str, Any]]:
    """A net of the zoo, analysed once for all tests here; they only read it."""
    entry = ZOO[name]
    return made(entry.build(), *entry.inputs(2), example_kwargs=entry.kwargs(2))


@pytest.mark.parametrize("name", CASES)
def test_the_three_pictures_are_of_one_network(name: str) -> None:
    geta, data = of_zoo(name)
    count, layers = len(data["nodes"]["name"]), data["layers"]
    assert count == len(list(geta.trace.module.graph.nodes)) == len(layers["raw"]["nodes"])
    assert {len(column) for column in data["nodes"].values()} == {count}
    for layer in layers.values():
        assert len(set(layer["nodes"])) == len(layer["nodes"])
        assert set(layer["edges"]) <= set(layer["nodes"])
        pairs = list(zip(layer["edges"][::2], layer["edges"][1::2], strict=True))
        assert len(set(pairs)) == len(pairs)
        assert all(a < b for a, b in pairs), "data flows in order of execution"
    assert set(layers["QADG"]["nodes"]) <= set(layers["branches"]["nodes"]) <= set(layers["raw"]["nodes"])
    names = data["nodes"]["name"]
    assert [names[i] for i in layers["QADG"]["nodes"]] == [vertex.name for vertex in geta.qadg.vertices]
    ends = layers["QADG"]["edges"]
    assert [(names[a], names[b]) for a, b in zip(ends[::2], ends[1::2], strict=True)] == list(geta.qadg.edges)


@pytest.mark.parametrize("name", CASES)
def test_every_node_is_in_exactly_one_module_and_every_module_has_one_above(name: str) -> None:
    _, data = of_zoo(name)
    paths = data["modules"]["path"]
    assert paths[0] == "" and len(set(paths)) == len(paths) == len(data["modules"]["type"])
    assert set(data["nodes"]["module"]) <= set(range(len(paths)))
    assert all(path.rpartition(".")[0] in paths for path in paths)


def test_folded_nodes_are_those_of_the_branches(both: tuple[gt.GETA, dict[str, Any]]) -> None:
    geta, data = both
    names, branch_of, vertex_of = data["nodes"]["name"], data["nodes"]["branch"], data["nodes"]["vertex"]
    vertices = {names[i] for i in data["layers"]["QADG"]["nodes"]}
    assert len(data["branches"]) == len(geta.qadg.branches) == 6
    for position, branch in enumerate(geta.qadg.branches):
        inside = [i for i, at in enumerate(branch_of) if at == position]
        assert set(branch.nodes) <= {names[i] for i in inside}
        assert not set(branch.nodes) & vertices
        assert {names[vertex_of[i]] for i in inside} == {branch.operator}
        numbers = {names[i] for i in inside} - set(branch.nodes)
        assert set(branch.parameters) <= numbers
        weight = {branch.name.replace(".parametrizations.weight.original", ".weight")} if branch.kind == "attached" else set()
        assert numbers - set(branch.parameters) == weight


def test_a_vertex_knows_its_tensors_quantizers_costs_and_families(both: tuple[gt.GETA, dict[str, Any]]) -> None:
    geta, data = both
    index = {name: str(i) for i, name in enumerate(data["nodes"]["name"])}
    tensors = [name for name, _, _ in data["tensors"]]
    convolution, head = data["vertices"][index["conv2d_1"]], data["vertices"][index["linear"]]
    assert [tensors[t] for t in convolution["t"]] == ["3.weight", "3.bias"]
    assert data["quantizers"]["weight"][convolution["w"]] == data["quantizers"]["input"][convolution["a"]] == "3"
    names = [family["name"] for family in data["families"]]
    assert ([names[f] for f in convolution["p"]], [names[f] for f in convolution["u"]]) == (["3"], ["0"])
    assert [names[f] for f in data["vertices"][index["relu_1"]]["c"]] == ["3"]
    assert (head.get("p"), [names[f] for f in head["u"]]) == (None, ["3"])
    dense = {row.layer: row for row in geta.cost.dense.layers}
    assert convolution["k"][0] == dense["3"].macs and convolution["k"][3] == 8 * 8 * 9 + 8
    total = sum(facts["k"][1] for facts in data["vertices"].values() if "k" in facts)
    assert total == pytest.approx(geta.cost.dense.bops_full, rel=1e-12)


def test_a_protected_axis_says_why(both: tuple[gt.GETA, dict[str, Any]]) -> None:
    _, data = both
    name, shape, why = next(row for row in data["tensors"] if row[0] == "8.weight")
    assert (name, shape) == ("8.weight", [3, 8])
    assert [(axis, data["reasons"][reason][0]) for axis, reason in why] == [(0, "an output of the network")]


def test_a_residual_family_is_made_by_all_its_layers() -> None:
    _, data = made(Residual(), IMAGES)
    makers = [i for i, facts in data["vertices"].items() if "p" in facts]
    assert [data["nodes"]["name"][int(i)] for i in makers] == ["conv2d", "conv2d_1"]
    (family,) = data["families"]
    assert {name for name, *_ in family["slices"]} >= {"stem.weight", "body.weight", "head.weight"}


def test_a_shared_module_gives_its_tensors_to_every_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.again(torch.relu(self.again(self.first(x))))))

    _, data = made(Twice(), ROWS)
    tensors = [name for name, _, _ in data["tensors"]]
    readers = [i for i, facts in data["vertices"].items() if "again.weight" in [tensors[t] for t in facts.get("t", ())]]
    assert len(readers) == 2


def test_pruning_only_has_no_branches_and_no_bits() -> None:
    geta, data = made(cnn(), IMAGES, quantize=None)
    assert data["branches"] == [] and data["quantizers"] == {"weight": [], "input": []}
    assert live_state(geta) == {"weight": [], "input": [], "kept": [1.0, 1.0]}


def test_live_state_follows_the_weights(both: tuple[gt.GETA, dict[str, Any]]) -> None:
    geta, _ = made(cnn(), IMAGES)
    geta.mask([group.index for group in list(geta.families[1].groups)[:2]])
    assert live_state(geta) == {"weight": [16.0, 16.0, 16.0], "input": [], "kept": [1.0, 0.75]}


def test_an_input_quantizer_without_a_range_has_no_bits_yet(both: tuple[gt.GETA, dict[str, Any]]) -> None:
    state = live_state(both[0])
    assert json.loads(json.dumps(state, allow_nan=False)) == state


def test_the_budget_is_told_by_family_and_as_a_line_that_makes_it_again(both: tuple[gt.GETA, dict[str, Any]]) -> None:
    geta, _ = both
    exceptions = {"0": gt.LayerBudget(protect=True), "3": gt.LayerBudget(bit_range=(8, 8), max_sparsity=0.25)}
    for budget in (gt.Budget(0.3, exceptions=exceptions), gt.Budget(relative_bops=0.03, bit_range=(2, 8), round_to=4), gt.Budget()):
        assert eval(budget_code(budget), {"gt": gt}) == budget
    state = budget_state(geta, gt.Budget(0.3, exceptions=exceptions))
    assert (state["protect"], state["sparsity"], state["bits"]) == ([True, False], [None, 0.25], [[4, 16], [8, 8], [4, 16]])


@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_module_name_is_cleaned_text_and_json(bad: str) -> None:
    if set(bad) & set('."\n\x00') or bad != bad.encode(errors="ignore").decode():
        pytest.skip("torch.fx writes names into code, and cannot write this one")
    model = nn.Sequential()
    model.add_module(bad, nn.Linear(6, 8))
    model.add_module("last", nn.Linear(8, 2))
    _, data = made(model, ROWS)
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text.encode()) == json.loads(text)
    assert clean(bad) in data["modules"]["path"]
    json.dumps(data, ensure_ascii=False).encode()  # no lone surrogate is left


def test_the_same_network_gives_the_same_data() -> None:
    torch.manual_seed(0)
    first = json.dumps(made(cnn(), IMAGES)[1])
    torch.manual_seed(0)
    assert json.dumps(made(cnn(), IMAGES)[1]) == first
