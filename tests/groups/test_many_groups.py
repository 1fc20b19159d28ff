"""Networks of many layers and groups: what is found out of a layer costs what the layer is, not what the network is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from geta_nb.groups import Labels, Propagation, find_groups
from geta_nb.groups.labels import LabelSpace, components, single_axis
from geta_nb.groups.operators.registry import Findings

WIDTH = 64


def layers_apart(count: int) -> Propagation:
    """So many parameters of 64 channels, each a family of its own."""
    space, findings, tensors = LabelSpace(), Findings(), {}
    for number in range(count):
        labels = space.new(WIDTH)
        findings.produced.append(labels)
        tensors[f"layer{number}.weight"] = Labels((WIDTH, 3), (single_axis((WIDTH, 3), 0, labels),), "param")
    state = Propagation(space, findings, tensors=tensors)
    state.classes = space.classes()
    return state


def seconds_a_layer(count: int) -> float:
    state = layers_apart(count)

    def once() -> float:
        begin = time.process_time()
        find_groups(state)
        return time.process_time() - begin

    return min(once() for _ in range(3)) / count


def test_sixteen_times_the_layers_take_sixteen_times_as_long():
    """Where each parameter was compared with all groups, a layer of the larger network took five times as long."""
    assert seconds_a_layer(1600) < 2.5 * seconds_a_layer(100)


def test_sizes_count_the_corner_of_two_axes_once():
    """By hand: a 4 x 4 matrix of which one group has rows 0, 1 and column 0, 8 + 4 - 2; all else is of the other."""
    space, findings = LabelSpace(), Findings()
    rows, columns = space.new(4), space.new(4)
    findings.produced.append(rows)
    space.union(np.array([rows[0], rows[0], rows[2], rows[2], rows[2], rows[2]]), np.array([rows[1], columns[0], rows[3], *columns[1:]]))
    arrays = (single_axis((4, 4), 0, rows), single_axis((4, 4), 1, columns))
    state = Propagation(space, findings, tensors={"weight": Labels((4, 4), arrays, "param")})
    state.classes = space.classes()
    table, _ = find_groups(state)
    assert sorted(table.group_size.tolist()) == [10, 14]  # rows 2, 3 and columns 1 to 3: 8 + 12 - 6


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_a_search(seed: int):
    generator = np.random.default_rng(seed)
    size = 200
    edges = [tuple(generator.integers(0, size, (2, int(n)))) for n in generator.integers(0, 30, 6)]
    near: dict[int, set[int]] = {label: set() for label in range(size)}
    for left, right in edges:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            near[one].add(other)
            near[other].add(one)
    expected, classes = [-1] * size, 0
    for start in range(size):
        queue = [start] if expected[start] < 0 else []
        classes += len(queue)
        while queue:
            label = queue.pop()
            expected[label] = classes - 1
            queue += [other for other in near[label] if expected[other] < 0]
    assert components(size, edges).tolist() == expected


def test_a_long_chain_of_unions_against_their_order_is_one_class():
    labels = np.arange(5000)
    backwards = [(labels[at : at + 1], labels[at + 1 : at + 2]) for at in range(4998, -1, -1)]
    assert not components(5000, backwards).any()
    assert not components(5000, [(labels[:-1], labels[1:])]).any()
