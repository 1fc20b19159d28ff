from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from geta_nb.display.layout import COLUMN_GAP, layered
from geta_nb.display.small_graph import graph_svg

graphs = st.integers(1, 25).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=50))
)
SIZE = (60.0, 30.0)


@given(graphs)
def test_no_two_boxes_overlap_whatever_the_graph(graph: tuple[int, list[tuple[int, int]]]) -> None:
    n, edges = graph
    centres = layered([SIZE] * n, edges).centres
    for i in range(n):
        for j in range(i):
            (x, y), (u, v) = centres[i], centres[j]
            # Positions are sums of at most 25 + 50 * 25 boxes of 10**2 pixels: rounding stays far below 1e-6.
            assert abs(y - v) >= SIZE[1] or abs(x - u) >= SIZE[0] + COLUMN_GAP - 1e-6


@given(st.integers(2, 25).flatmap(lambda n: st.lists(st.tuples(st.integers(0, n - 2), st.integers(1, n - 1)), min_size=1, max_size=50)))
def test_every_edge_of_an_acyclic_graph_runs_downwards(pairs: list[tuple[int, int]]) -> None:
    edges = [(a, b) for a, b in pairs if a < b]
    n = 25
    layout = layered([SIZE] * n, edges)
    for (a, b), route in zip(edges, layout.routes, strict=True):
        assert route[0] == (layout.centres[a][0], layout.centres[a][1] + SIZE[1] / 2)
        assert route[-1] == (layout.centres[b][0], layout.centres[b][1] - SIZE[1] / 2)
        assert all(lower[1] >= upper[1] for upper, lower in pairwise(route))


def test_a_cycle_is_laid_out_too() -> None:
    assert len(layered([SIZE] * 3, [(0, 1), (1, 2), (2, 0)]).centres) == 3


def test_a_chain_is_a_straight_column() -> None:
    centres = layered([SIZE] * 4, [(0, 1), (1, 2), (2, 3)]).centres
    assert len({x for x, _ in centres}) == 1


def test_an_empty_graph_has_no_size() -> None:
    layout = layered([], [])
    assert (layout.width, layout.height, layout.centres) == (0, 0, [])


def test_a_small_graph_has_a_box_and_an_arrow_for_each_name_and_edge():
    edges = [("x", "a"), ("a", "b"), ("x", "<b&>"), ("x", "<b&>"), ("<b&>", "b")]
    drawn = ElementTree.fromstring(graph_svg(edges, colours={"a": 8}))
    kinds = [part.get("class", "") for part in drawn.iter()]
    assert (kinds.count("gv-box"), kinds.count("gv-head")) == (4, 4)
    assert [part.text for part in drawn.iter() if part.get("class") == "gv-strong"] == ["x", "a", "b", "<b&>"]
    assert kinds.count("gv-c1") == 1  # hue 8 of 7
