"""What had better be zeroed with a channel, and what not: written down. Serves the rules.

Buffers that alone keep a removed channel from zero, the shift of a frozen norm, are to be zeroed with it; parameters that something is
divided by, the direction of ``weight_norm`` over its length, are not. What stands here only proposes: labels are made anew, and decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geta_nb.groups.labels import NOT_FINITE, SHARED, Ints, LabelArray, Labels
from geta_nb.groups.operators.registry import Call

Places = NDArray[np.bool_]


def curable(call: Call, spoilers: Ints) -> Places:
    """Return where a value is not zero once removed because of one buffer that could be zeroed."""
    if not call.space.curable or not spoilers.any():
        return np.zeros(spoilers.shape, dtype=bool)
    return np.isin(spoilers % SHARED, np.fromiter(call.space.curable, dtype=np.int64)) & (spoilers < NOT_FINITE)


def note_cures(call: Call, arrays: Sequence[LabelArray], places: Places) -> None:
    """Write down that zeros of these values, made of buffers, would make what meets data here zero at ``places``."""
    for array in arrays:
        where = places & curable(call, array.spoilers)
        if where.any():
            call.findings.cures.append((array.labels[where], array.spoilers[where] % SHARED))


def note_affine(call: Call, vectors: Sequence[Labels | None], like: LabelArray, places: Places) -> None:
    """The same of the scale and the shift of a norm over ``like``."""
    if call.space.curable:
        note_cures(call, [array for item in vectors if item is not None for array in item.arrays if array.cover == like.cover], places)


def blamed_first(call: Call, found: Sequence[LabelArray | None], alone: Places) -> list[LabelArray]:
    """Return arrays of operands in the order of blame: first those of which zeros ``alone`` would do, where a buffer is behind them."""
    present = [(array, bool(lone)) for array, lone in zip(found, alone, strict=True) if array is not None]
    if call.space.curable:
        present.sort(key=lambda item: not (item[1] and curable(call, item[0].spoilers).any()))
    return [array for array, _ in present]


def note_pointwise(
    call: Call, operands: Sequence[Labels], found: Sequence[LabelArray | None], spoiled: Places, zeros: Ints, table: Ints
) -> None:
    """Write down which operands of an element-wise operator would have to be zero, where buffers met data and the result is not.

    Args:
        operands: all of them.
        found: of each, the array of one cover.
        spoiled: where the result is not zero once removed.
        zeros: the operands that are zero, one bit each.
        table: whether the result is zero (0) for each combination of zeros.
    """
    if not call.space.curable or all(item.source != "data" for item in operands):
        return
    pairs = enumerate(zip(operands, found, strict=True))
    present = [(1 << i, item.source == "data", array) for i, (item, array) in pairs if array is not None]
    for _, of_data, array in present:
        if of_data:  # what spoiled the data before is to be cured there
            spoiled = spoiled & ~curable(call, array.spoilers)
    made = [(bit, array) for bit, of_data, array in present if not of_data and curable(call, array.spoilers).any()]
    for chosen in (*([item] for item in made), made):  # one that is enough, else all
        places = spoiled & (table[zeros | sum(bit for bit, _ in chosen)] == 0)
        note_cures(call, [array for _, array in chosen], places)
        spoiled = spoiled & ~places


def note_divisors(
    call: Call, operands: Sequence[Labels], found: Sequence[LabelArray | None], places: Places, zeros: Ints, undefined: Places
) -> None:
    """Write down parameters of which zeros make an element-wise operator give no number at ``places``; the rest as above."""
    for i, (item, array) in enumerate(zip(operands, found, strict=True)):
        if array is not None and item.source == "param":
            guilty = places & (array.spoilers == 0) & ~undefined[zeros & ~(1 << i)]
            if guilty.any():
                call.findings.needed.append(array.labels[guilty])
