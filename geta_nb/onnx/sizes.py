"""Which axes a file may leave open: those along which it can give no other numbers than the network. Used by ``export``.

In: a lowered graph, and which sizes the network takes. Out: the exported program with axes open. A file checks no condition on sizes: where
the network takes another way for a size (a branch in its code), or refuses it, and every operator of the program would run all the same,
that axis is bound to the size of the example. What an operator itself refuses, a runtime refuses too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from geta_nb.graph import InputSizes, export_program, sizes_of, value_of

_ROUNDS = 4


def open_program(
    lowered: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], taken: InputSizes | None
) -> tuple[torch.export.ExportedProgram, bool] | None:
    """Return a program with as many axes open as may be, and whether its batch is; None where there is none.

    Args:
        lowered: the graph on its way to ONNX.
        args, kwargs: example inputs.
        taken: which sizes the network takes.
    """
    axes = taken.open_axes if taken is not None else None
    for _ in range(_ROUNDS):
        program, batch = export_program(lowered, args, kwargs, sizes="any", axes=axes)
        own = sizes_of(program)
        if own is None or taken is None or len(own.inputs) != len(taken.inputs):
            return None
        unsafe = _unsafe(own, taken)
        if not unsafe:
            return program, batch
        axes = [
            tuple(axis for axis in free if not isinstance(size := (item.axes or ())[axis], str) or size not in unsafe)
            for free, item in zip(own.open_axes, own.inputs, strict=True)
        ]
    return None


def _unsafe(own: InputSizes, taken: InputSizes) -> set[str]:
    """Return free sizes of a program along which it would run where the network does not take its inputs, the fewest that are found."""
    example = dict(own.example)
    stiff = {name for name in example if not own.varies(name, own.shapes(example))}
    if stiff:
        return stiff  # open by name alone: no other size goes with those of the other axes
    names = sorted(example.keys(), key=lambda name: own.free[name][1], reverse=True)  # the batch last
    for count in (1, 2):
        for chosen in itertools.combinations(names, count):
            for sizes in _others(example, chosen):
                if all(value_of(text, sizes) for text in own.conditions) and not taken.accepts(own.shapes(sizes)):
                    return {chosen[0]}
    return set()


def _others(example: Mapping[str, int], names: tuple[str, ...]) -> Iterator[dict[str, int]]:
    factors = (2, 3, 4, 10)
    tried = [
        sorted({*range(1, 10), 31, 64, 100, size - 1, size + 1, *(factor * size for factor in factors)} - {0})
        for size in map(example.__getitem__, names)
    ]
    for sizes in itertools.product(*tried):
        yield {**example, **dict(zip(names, sizes, strict=True))}
