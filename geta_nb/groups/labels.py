"""Index labels: which indices of which tensors live and die together. First step of stage 2: operators call
this, groups are read off it.

Every index of every axis of a parameter has a label. A tensor carries *label arrays* that broadcast to its shape; an element is alive while
every label that reaches it is. Operators union the labels that they align, and *fix* those that nothing may remove. An axis longer than one
that no label array covers is a fixed axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
REAL, FREE, CONSTANT = 0, 1, 2
SHARED = 1 << 38  # added, with UNSTEADY, where no row makes the value (one value head for all heads): the reader's columns are zeroed
UNSTEADY = 1 << 39  # added to a reason's id where a removed channel gives more than a constant: something that depends on data or position
NOT_FINITE = 1 << 40  # added to a reason's id where removal gives inf or nan: no later product with zero makes that zero


@dataclass(frozen=True)
class Reason:
    """Why labels are fixed, or why a removed channel is not zero: words, the operator, and the path of the module that ran it."""

    text: str
    operator: str
    module_path: str


@dataclass(frozen=True)
class LabelArray:
    """Labels along some axes of a tensor.

    Attributes:
        labels: label ids; as many axes as the tensor, each of the tensor's size or 1.
        spoilers: same shape; 0 where the value is zero once its label is removed, else the id of the :class:`Reason` why it is not:
            alone where it is a constant then, which a consumer's bias can take over, plus ``UNSTEADY`` where it is none, plus
            ``NOT_FINITE`` where it is not even a number. The larger one is always the worse.
        origin: REAL for labels of parameters; FREE for an expanded axis or a padding, which follow whatever they meet; CONSTANT for
            a buffer, which gives way to a joint array (rotary frequencies must not decide over heads).
    """

    labels: Ints
    spoilers: Ints
    origin: int = 0

    @property
    def cover(self) -> tuple[int, ...]:
        """Axes along which the labels differ."""
        return tuple(axis for axis, size in enumerate(self.labels.shape) if size > 1)

    def map(self, change: Callable[[Ints], Ints]) -> LabelArray:
        """Return the array with ``change`` applied to labels and spoilers alike."""
        return LabelArray(change(self.labels), change(self.spoilers), self.origin)

    def spoiled(self, reason: int) -> LabelArray:
        """Return the array of values that are not zero when removed, nor constant; what is not a number stays so."""
        return LabelArray(self.labels, np.where(self.spoilers >= NOT_FINITE, self.spoilers, UNSTEADY + reason), self.origin)

    @property
    def steady(self) -> NDArray[np.bool_]:
        """Where the value is a constant, other than zero, once its label is removed."""
        return np.asarray((self.spoilers > 0) & (self.spoilers < UNSTEADY))

    def unsteady(self) -> LabelArray:
        """Return the array with no constants: what is not zero when removed may be anything."""
        return LabelArray(self.labels, self.spoilers + self.steady * UNSTEADY, self.origin) if self.steady.any() else self


@dataclass(frozen=True)
class Labels:
    """The label arrays of one tensor.

    Attributes:
        shape: shape of the tensor, traced sizes.
        arrays: label arrays with disjoint covers.
        source: "param" (made of parameters only), "const", or "data" (depends on the inputs).
    """

    shape: tuple[int, ...]
    arrays: tuple[LabelArray, ...] = ()
    source: str = "data"

    def covering(self, axis: int) -> LabelArray | None:
        """Return the array that covers ``axis``, or None when the axis is fixed or has one index."""
        return next((array for array in self.arrays if array.labels.shape[axis] > 1), None)


@dataclass(frozen=True)
class Extent:
    """A product of axis sizes of which some depend on the groups that live.

    Attributes:
        const: product of the fixed sizes.
        arrays: group id of each element, -1 where it can never be removed; one array per independent axis.
    """

    const: int
    arrays: tuple[Ints, ...] = ()

    def count(self, alive: NDArray[np.bool_]) -> int:
        """Return the number of elements left when only the groups marked in ``alive`` [G] live.

        >>> Extent(3, (np.array([0, 0, 1, -1]),)).count(np.array([True, False]))
        9
        """
        kept = np.append(alive, True)  # index -1 lands here
        return self.const * int(np.prod([int(kept[array].sum()) for array in self.arrays], dtype=np.int64))


@dataclass
class LabelSpace:
    """All labels of one network: their unions, what is fixed, and what reaches a consumer without being zero.

    ``approximate_norms``: whether what norms run over may go, though their statistics then change; ``approximations`` are such labels.
    ``curable``: ids of reasons that are gone when a buffer's entries are zeroed with their group, and the name of that buffer.
    """

    size: int = 0
    approximate_norms: bool = False
    approximations: list[Ints] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=lambda: [Reason("", "", "")])
    edges: list[tuple[Ints, Ints]] = field(default_factory=list)
    fixed: list[tuple[Ints, int]] = field(default_factory=list)
    checks: list[tuple[Ints, Ints]] = field(default_factory=list)
    curable: dict[int, str] = field(default_factory=dict)
    _never: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1024, dtype=bool))

    def new(self, count: int) -> Ints:
        """Return ``count`` labels that nothing else has."""
        self.size += count
        if self.size > len(self._never):
            self._never = np.concatenate([self._never, np.zeros(2 * self.size - len(self._never), dtype=bool)])
        return np.arange(self.size - count, self.size, dtype=np.int64)

    def reason(self, text: str, operator: str, module_path: str) -> int:
        """Return the id of a reason."""
        self.reasons.append(Reason(text, operator, module_path))
        return len(self.reasons) - 1

    def union(self, left: Ints, right: Ints) -> None:
        """Make labels that stand at the same place live and die together; shapes broadcast."""
        if left is right:
            return
        left, right = np.broadcast_arrays(left, right)
        differ = left != right
        if differ.any():
            narrow = np.int32 if self.size < 2**31 else np.int64  # half of what a large network's unions take
            self.edges.append((left[differ].astype(narrow), right[differ].astype(narrow)))

    def fix(self, labels: Ints, reason: int) -> None:
        """Say that these labels can never be removed."""
        self.fixed.append((labels.ravel(), reason))
        self._never[labels] = True

    def is_fixed(self, array: LabelArray) -> bool:
        """Whether every label of an array has been fixed itself (not only one that it was united with)."""
        labels = array.labels
        return labels.size > 0 and bool(self._never[labels.flat[0]]) and bool(self._never[labels].all())

    def trimmed(self, labels: Labels) -> Labels:
        """Return ``labels`` without arrays that are fixed, so that they decide nothing about the arrays they would meet."""
        if any(self.is_fixed(array) for array in labels.arrays):
            return replace(labels, arrays=tuple(array for array in labels.arrays if not self.is_fixed(array)))
        return labels

    def require_zero(self, array: LabelArray) -> None:
        """Say that a consumer sums over these labels: they may go only if their values are zero then."""
        self.checks.append((array.labels.ravel(), array.spoilers.ravel()))

    def reduce(self, array: LabelArray, axis: int, reason: int) -> LabelArray | None:
        """Return the array without ``axis``: what it joins along that axis lives and dies as one. None when nothing is left."""
        if array.cover == (axis,):
            self.fix(array.labels, reason)
            return None
        first = array.labels.take([0], axis)
        self.union(array.labels, first)
        return LabelArray(first, array.spoilers.max(axis, keepdims=True), array.origin).unsteady()

    def fix_axes(self, labels: Labels, axes: Iterable[int], reason: int) -> Labels:
        """Return ``labels`` with nothing removable along ``axes``."""
        arrays = list(labels.arrays)
        for axis in axes:
            arrays = [kept for array in arrays if (kept := self._without(array, axis % max(len(labels.shape), 1), reason)) is not None]
        return replace(labels, arrays=tuple(arrays))

    def fix_all(self, labels: Labels, reason: int) -> None:
        """Fix every label of a tensor."""
        for array in labels.arrays:
            self.fix(array.labels, reason)

    def _without(self, array: LabelArray, axis: int, reason: int) -> LabelArray | None:
        return self.reduce(array, axis, reason) if array.labels.shape[axis] > 1 else array

    def align(self, operands: Sequence[Labels], reason: int) -> list[Labels]:
        """Align operands that broadcast against each other (same number of axes) and return them with equal covers.

        Where one operand's axis is fixed, all are. Where covers overlap without being equal, the outer axis stays removable and the
        inner one becomes fixed: whole heads go, not parts of them.
        """
        work = [list(operand.arrays) for operand in operands]
        shapes = [operand.shape for operand in operands]
        while self._fix_uncovered(work, shapes, reason) or self._split_overlap(work, reason):
            pass
        firsts: dict[tuple[int, ...], LabelArray] = {}
        for arrays in work:
            for array in arrays:
                self.union(firsts.setdefault(array.cover, array).labels, array.labels)
        return [replace(operand, arrays=tuple(arrays)) for operand, arrays in zip(operands, work, strict=True)]

    def _fix_uncovered(self, work: list[list[LabelArray]], shapes: Sequence[tuple[int, ...]], reason: int) -> bool:
        """Fix each axis that some operand holds fixed; True when that changed anything."""
        changed = False
        for axis in range(len(shapes[0]) if shapes else 0):
            present = [i for i, shape in enumerate(shapes) if shape[axis] > 1]
            covered = [any(array.labels.shape[axis] > 1 for array in work[i]) for i in present]
            if all(covered) or not any(covered):
                continue
            changed = True
            for i in present:
                work[i] = [kept for array in work[i] if (kept := self._without(array, axis, reason)) is not None]
        return changed

    def _split_overlap(self, work: list[list[LabelArray]], reason: int) -> bool:
        """Resolve one pair of overlapping, unequal covers; True when there was one."""
        arrays = sorted((array for item in work for array in item), key=lambda array: (len(array.cover), array.cover))
        for small in arrays:
            for large in arrays:
                shared = set(small.cover) & set(large.cover)
                if not shared or small.cover == large.cover:
                    continue
                if small.origin == CONSTANT and large.origin != CONSTANT and len(large.cover) > 1:
                    self._drop(work, small.cover, reason)
                    return True
                for item in work:
                    for i, array in enumerate(item):
                        if array.cover == large.cover or (array.cover == small.cover and not set(small.cover) < set(large.cover)):
                            for axis in set(array.cover) - shared:
                                reduced = self.reduce(array, axis, reason)
                                assert reduced is not None
                                array = reduced
                            item[i] = array
                return True
        return False

    def _drop(self, work: list[list[LabelArray]], cover: tuple[int, ...], reason: int) -> None:
        """Fix the arrays of exactly this cover in every operand."""
        for i, item in enumerate(work):
            for array in item:
                if array.cover == cover:
                    self.fix(array.labels, reason)
            work[i] = [array for array in item if array.cover != cover]

    def classes(self) -> Ints:
        """Return the class of each label, [number of labels], numbered from 0 in the order of their first labels."""
        return components(self.size, self.edges)


def components(size: int, edges: Sequence[tuple[Ints, Ints]]) -> Ints:
    """Return the class of each of ``size`` labels that pairs of equal length unite, [size]: connected components, numbered by first label.

    Each sweep lets the smaller of two classes' first labels take over, union by union, in place: unions mostly tie what is new to what is
    there, so a few sweeps do, and nothing is made of the size of all unions together.

    >>> components(5, [(np.array([4, 1]), np.array([1, 3]))]).tolist()
    [0, 1, 2, 1, 1]
    """
    first = np.arange(size, dtype=np.int32 if size < 2**31 else np.int64)
    moved = True
    while moved:
        moved = False
        for left, right in edges:
            one, other = first[left], first[right]
            if len(apart := np.flatnonzero(one != other)):
                one, other, moved = one[apart], other[apart], True
                low = np.minimum(one, other)
                for end in (one, other, left[apart], right[apart]):
                    np.minimum.at(first, np.asarray(end, dtype=np.intp), low)
        while moved and not np.array_equal(further := first[first], first):
            first = further
    number = np.cumsum(first == np.arange(size, dtype=first.dtype)) - 1
    return np.asarray(number[first], dtype=np.int64)


def sources_of(operands: Sequence[Labels]) -> str:
    """Return what a value made of ``operands`` is made of."""
    sources = {operand.source for operand in operands}
    return next((source for source in ("data", "param") if source in sources), "const")


def product_spoilers(left: Ints, right: Ints) -> Ints:
    """Return the spoilers of a product: zero where one factor is and the other is a number.

    >>> product_spoilers(np.array([0, 0, 3]), np.array([5, NOT_FINITE + 5, 7])).tolist() == [0, NOT_FINITE + 5, 7]
    True
    """
    worse = np.maximum(left, right)
    return np.where((worse < NOT_FINITE) & ((left == 0) | (right == 0)), 0, worse).astype(np.int64)


def single_axis(shape: Sequence[int], axis: int, labels: Ints, spoilers: Ints | None = None, *, origin: int = REAL) -> LabelArray:
    """Return a label array that covers one axis of a tensor of ``shape``."""
    form = [1] * len(shape)
    form[axis] = len(labels)
    zeros = np.broadcast_to(np.int64(0), form)  # takes no memory
    return LabelArray(labels.reshape(form), zeros if spoilers is None else spoilers.reshape(form), origin)
