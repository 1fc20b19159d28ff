"""Index labels: unions, alignment, what is fixed, zeros that survive, and views: the oracle for these is numpy on the ids themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geta_nb.groups.labels import CONSTANT, NOT_FINITE, UNSTEADY, LabelArray, Labels, LabelSpace, product_spoilers, single_axis, sources_of
from geta_nb.groups.reshaping import _blocks, reshape, settle


def vector(space: LabelSpace, *shape: int, axis: int, origin: int = 0) -> Labels:
    return Labels(shape, (single_axis(shape, axis, space.new(shape[axis]), origin=origin),))


def joint(space: LabelSpace, *shape: int, axes: tuple[int, ...]) -> Labels:
    form = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    labels = space.new(int(np.prod(form))).reshape(form)
    return Labels(shape, (LabelArray(labels, np.zeros_like(labels)),))


def classes_of(space: LabelSpace, labels: Labels) -> list[int]:
    return space.classes()[labels.arrays[0].labels].ravel().tolist()


def fixed_labels(space: LabelSpace) -> set[int]:
    return {int(label) for labels, _ in space.fixed for label in labels}


def test_union_is_transitive_and_leaves_others_apart() -> None:
    space = LabelSpace()
    a, b, c = space.new(2), space.new(2), space.new(2)
    space.union(a, b)
    space.union(b, c[::-1])
    first, second = space.classes()[a]
    assert space.classes().tolist() == [first, second, first, second, second, first]


def test_an_operand_of_size_one_constrains_nothing() -> None:
    space = LabelSpace()
    wide, narrow = vector(space, 2, 4, axis=1), Labels((2, 1))
    assert space.align([wide, narrow], 1)[0] == wide
    assert not fixed_labels(space)


def test_a_fixed_axis_fixes_what_it_is_aligned_with() -> None:
    space = LabelSpace()
    wide = vector(space, 2, 4, axis=1)
    aligned = space.align([wide, Labels((2, 4))], 1)
    assert aligned[0].arrays == ()
    assert fixed_labels(space) == {0, 1, 2, 3}


def test_a_joint_array_aligned_with_its_outer_axis_is_united_along_the_inner_one() -> None:
    space = LabelSpace()
    heads, scale = joint(space, 2, 3, 4, axes=(1, 2)), vector(space, 1, 3, 1, axis=1)
    aligned = space.align([heads, scale], 1)
    assert [array.cover for labels in aligned for array in labels.arrays] == [(1,), (1,)]
    classes = np.reshape(classes_of(space, heads), (3, 4))
    assert (classes == classes[:, :1]).all()
    assert len(set(classes[:, 0])) == 3
    assert classes[:, 0].tolist() == classes_of(space, scale)


def test_a_constant_gives_way_to_a_joint_array_of_parameters() -> None:
    space = LabelSpace()
    heads, frequencies = joint(space, 3, 4, axes=(0, 1)), vector(space, 1, 4, axis=1, origin=CONSTANT)
    aligned = space.align([heads, frequencies], 1)
    assert aligned[0].arrays[0].cover == (0,)  # whole heads stay removable
    assert fixed_labels(space) == set(frequencies.arrays[0].labels.ravel().tolist())


def test_two_independent_axes_merged_keep_the_outer_one() -> None:
    space = LabelSpace()
    both = Labels((3, 4), (*vector(space, 3, 4, axis=0).arrays, *vector(space, 3, 4, axis=1).arrays))
    merged = reshape(space, both, (12,), 1)
    assert merged.arrays[0].labels.tolist() == np.repeat([0, 1, 2], 4).tolist()
    assert fixed_labels(space) == {3, 4, 5, 6}


def test_an_array_cut_down_to_one_index_is_fixed() -> None:
    space = LabelSpace()
    one = Labels((2, 1), (LabelArray(space.new(1).reshape(1, 1), np.zeros((1, 1), dtype=np.int64)),))
    assert settle(space, one, 1).arrays == ()
    assert fixed_labels(space) == {0}


def test_a_joint_array_that_says_nothing_along_an_axis_gives_it_up() -> None:
    space = LabelSpace()
    ids = np.broadcast_to(space.new(3)[:, None], (3, 4))
    spoilers = np.zeros((3, 4), dtype=np.int64)
    spoilers[1, 2] = 7  # a constant, as long as it is alone
    settled = settle(space, Labels((3, 4), (LabelArray(ids, spoilers),)), 1)
    assert settled.arrays[0].cover == (0,)
    assert settled.arrays[0].spoilers.ravel().tolist() == [0, UNSTEADY + 7, 0]  # one value that is not zero spoils its row


@pytest.mark.parametrize(
    ("left", "right", "product"),
    [(0, 0, 0), (0, 5, 0), (5, 0, 0), (3, 5, 5), (0, NOT_FINITE + 5, NOT_FINITE + 5), (NOT_FINITE + 5, 0, NOT_FINITE + 5)],
)
def test_a_product_is_zero_where_one_factor_is_and_the_other_a_number(left: int, right: int, product: int) -> None:
    assert product_spoilers(np.array([left]), np.array([right])).tolist() == [product]


def test_what_is_no_number_stays_so_whatever_spoils_it_later() -> None:
    array = LabelArray(np.arange(2), np.array([0, NOT_FINITE + 3])).spoiled(9)
    assert array.spoilers.tolist() == [UNSTEADY + 9, NOT_FINITE + 3]


def test_a_value_depends_on_data_as_soon_as_one_operand_does() -> None:
    assert sources_of([Labels((1,), (), "param"), Labels((1,), (), "data")]) == "data"
    assert sources_of([Labels((1,), (), "param"), Labels((1,), (), "const")]) == "param"
    assert sources_of([Labels((1,), (), "const")]) == "const"
    assert sources_of([]) == "const"


_SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def test_a_view_that_fits_one_size_alone_moves_no_label() -> None:
    """(B, 4, H, W) as (-1, 2, 2, 3, 3) reads channels where H and W are 3, and anything where they are not."""
    space = LabelSpace()
    labels = Labels((2, 4, 3, 3), (single_axis((2, 4, 3, 3), 1, space.new(4)),))
    free = [(2, 4), 4, (3, 6), (3, 6)]
    assert not reshape(space, labels, (2, 2, 2, 3, 3), 1, at=(free, [(2, 16), 2, 2, 3, 3])).arrays
    assert space.is_fixed(labels.arrays[0])
    for after, shape in (([(2, 4), 2, 2, (9, 36)], (2, 2, 2, 9)), ([(2, 4), (36, 144)], (2, 36))):
        viewed = reshape(space, labels, shape, 1, at=(free, after))
        assert viewed.arrays[0].labels.size == (4 if len(shape) == 4 else 36)


def test_images_and_places_in_front_only_count() -> None:
    space = LabelSpace()
    labels = Labels((2, 5, 12), (single_axis((2, 5, 12), 2, space.new(12)),))
    viewed = reshape(space, labels, (40, 3, 1), 1, at=([(2, 4), (5, 15), 12], [(40, 240), 3, 1]))
    assert viewed.arrays[0].labels.shape == (40, 3, 1) and (viewed.arrays[0].labels[:4] == viewed.arrays[0].labels[4:8]).all()


@settings(deadline=None)
@given(_SHAPES, st.data())
def test_blocks_have_equal_products_and_are_the_finest(old: list[int], data: st.DataObject) -> None:
    new = data.draw(st.permutations(old))
    blocks = _blocks(tuple(old), tuple(new))
    assert [axis for block, _ in blocks for axis in block] == list(range(len(old)))
    assert [axis for _, block in blocks for axis in block] == list(range(len(new)))
    for left, right in blocks:
        assert np.prod([old[i] for i in left]) == np.prod([new[i] for i in right])
        inner_left = {int(np.prod([old[i] for i in left[:n]])) for n in range(1, len(left))}
        inner_right = {int(np.prod([new[i] for i in right[:n]])) for n in range(1, len(right))}
        assert not (inner_left & inner_right) - {1, int(np.prod([old[i] for i in left]))}


@settings(deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3]), min_size=2, max_size=4), st.data())
def test_a_view_does_to_labels_what_numpy_does_to_numbers(shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.sampled_from([i for i, size in enumerate(shape) if size > 1] or [0]))
    target = tuple(data.draw(st.permutations([2] * shape.count(2) + [3] * shape.count(3))))
    if shape[axis] == 1 or not target:
        return
    space = LabelSpace()
    source = vector(space, *shape, axis=axis)
    viewed = reshape(space, source, target, 1)
    expected = np.broadcast_to(source.arrays[0].labels, shape).reshape(target)
    assert np.array_equal(np.broadcast_to(viewed.arrays[0].labels, target), expected)
    assert not fixed_labels(space)
