"""The folded graph: what a vertex carries, and that its edges are the flow of data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

import geta_nb as gt
from tests.small_nets import IMAGES, ROWS, Literal, Residual, cnn
from tests.zoo.catalogue import ZOO

MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "cnn": lambda: (cnn(), (IMAGES,)),
    "residual": lambda: (Residual(), (IMAGES,)),
    "literal": lambda: (Literal(), (ROWS,)),
    **{name: (lambda e=ZOO[name]: (e.build(), e.inputs(2))) for name in ("multihead_attention", "shared_conv", "glu_chunk", "unet")},
}
QUANTIZE = {"plain": None, "weights and inputs": gt.QuantConfig(activations=True)}


@pytest.fixture(scope="module", params=[(name, mode) for name in MODELS for mode in QUANTIZE], ids="-".join)
def geta(request: pytest.FixtureRequest) -> gt.GETA:
    return made(*request.param)


@cache
def made(name: str, mode: str) -> gt.GETA:
    model, inputs = MODELS[name]()
    return gt.GETA(model, inputs, quantize=QUANTIZE[mode])


def test_names_are_unique_and_edges_join_vertices(geta: gt.GETA) -> None:
    names = [v.name for v in geta.qadg.vertices]
    assert len(set(names)) == len(names) and len(set(geta.qadg.edges)) == len(geta.qadg.edges)
    assert {end for edge in geta.qadg.edges for end in edge} <= set(names)


def test_the_graph_is_acyclic_and_hangs_together(geta: gt.GETA) -> None:
    position = {v.name: i for i, v in enumerate(geta.qadg.vertices)}
    assert all(position[a] < position[b] for a, b in geta.qadg.edges), "an edge against the order of execution"
    reached, pending = set(), ["output"]
    while pending:
        name = pending.pop()
        reached.add(name)
        pending += [a for a, b in geta.qadg.edges if b == name and a not in reached]
    assert reached == set(position), "a vertex from which the output is not reached"


def test_every_quantizer_stands_at_a_vertex(geta: gt.GETA) -> None:
    carried = [{getattr(v, key) for v in geta.qadg.vertices} - {None} for key in ("weight_quantizer", "input_quantizer")]
    assert carried == [set(geta.bit_widths()), set(geta.activation_bit_widths())]
    inside = {name for branch in geta.qadg.branches for name in branch.nodes}
    assert not inside & {v.name for v in geta.qadg.vertices} and len(geta.qadg.branches) >= len(geta.bit_widths())


def test_every_branch_names_raw_nodes(geta: gt.GETA) -> None:
    raw = {node.name for node in geta.trace.module.graph.nodes}
    for branch in geta.qadg.branches:
        assert {branch.entry, branch.exit, branch.operator, *branch.nodes} <= raw
        assert branch.kind in {"attached", "inserted"} and branch.exit in branch.nodes and branch.entry not in branch.nodes
    assert len({branch.name for branch in geta.qadg.branches}) == len(geta.qadg.branches)
    assert len(geta.trace.nodes) >= len(geta.qadg.vertices) - 1


@pytest.mark.parametrize("name", MODELS)
def test_quantizers_change_no_vertex_and_no_edge(name: str) -> None:
    graphs = []
    for mode in QUANTIZE:
        qadg = made(name, mode).qadg
        position = {v.name: i for i, v in enumerate(qadg.vertices)}
        graphs.append(([(v.operator, v.shape, v.family) for v in qadg.vertices], {(position[a], position[b]) for a, b in qadg.edges}))
    assert graphs[0] == graphs[1]


def test_a_quantizer_on_a_residual_input_belongs_to_its_reader() -> None:
    geta = gt.GETA(Residual(), IMAGES, quantize=gt.QuantConfig(activations=True))
    by_layer = {v.module_path: v for v in geta.qadg.vertices if v.operator == "conv2d"}
    assert {path: v.input_quantizer for path, v in by_layer.items()} == {"stem": "stem", "body": "body", "head": "head"}
    # the sum reads the raw stream, not the quantized one
    (total,) = (v.name for v in geta.qadg.vertices if v.operator == "add")
    assert {a for a, b in geta.qadg.edges if b == total} == {by_layer["body"].name, "relu"}


def test_vertices_say_which_family_they_produce() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    produced = {v.module_path: v.family for v in geta.qadg.vertices if v.weight_quantizer}
    assert produced == {"0": geta.families[0].name, "3": geta.families[1].name, "8": None}
