"""One change at a time: a layer at fewer bits, a family with fewer groups; put into the model, and taken back to the last bit.

In: the model's tensors, quantizers and groups. Out: context managers. Nothing is trained here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geta_nb.groups import GroupTable
from geta_nb.qasso import FAMILY, INPUT, WEIGHT
from geta_nb.quantizers import Adopted, ComputedWeight, Histogram, Quantizer, Quantizers, fitted_clip, largest_code
from geta_nb.sharding import local, share_of


class Probe(NamedTuple):
    """One question: how much the loss rises with ``name`` at ``at``.

    ``kind`` is "weight" or "input" (``name`` a layer, ``at`` bits) or "family" (``name`` a family, ``at`` the share of its groups kept).
    """

    kind: str
    name: str
    at: float


def groups_kept(share: float, count: int) -> int:
    """Return how many of ``count`` groups a share stands for: whole ones, one at least.

    >>> groups_kept(0.5, 7), groups_kept(0.01, 7), groups_kept(1.0, 7)
    (4, 1, 7)
    """
    return min(max(math.ceil(share * count - 1e-9), 1), count)


@dataclass(frozen=True, eq=False)
class Prober:
    """Puts a probe into a model.

    Args:
        table: the groups.
        parameters: own name -> tensor.
        quantizers: what is quantized; None: nothing.
        order: family -> its groups, the least salient first.
        inputs: layer -> histogram of its inputs.
        buffers: own name -> tensor, of which some go with groups.
    """

    table: GroupTable
    parameters: Mapping[str, Tensor]
    quantizers: Quantizers | None
    order: Mapping[str, Sequence[int]]
    inputs: Mapping[str, Histogram]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    def probes(self, bits: Sequence[int], kept: Sequence[float]) -> list[Probe]:
        """Return all questions: weights, inputs, families; from many bits to few, from many groups to few."""
        weights, inputs = (self.quantizers.weights, self.quantizers.activations) if self.quantizers else ({}, {})
        asked = [Probe(WEIGHT, layer, float(b)) for layer in weights for b in sorted(bits, reverse=True)]
        asked += [Probe(INPUT, layer, float(b)) for layer in inputs if layer in self.inputs for b in sorted(bits, reverse=True)]
        return asked + [Probe(FAMILY, name, float(share)) for name in self.order for share in sorted(kept, reverse=True)]

    def numbers(self, probe: Probe) -> tuple[Tensor, Tensor, Tensor]:
        """Return d, q_m and t of a quantizer at the bits of a probe: the range of least squared error, the exponent as it is."""
        quantizer = self.quantizer(probe)
        clip, exponent = quantizer.clip_max.detach(), quantizer.exponent.detach()
        most = largest_code(probe.at, signed=quantizer.signed)
        if probe.kind == INPUT:
            clip = torch.full_like(clip, self.inputs[probe.name].fitted_clip(most, float(exponent)))
        else:
            clip = fitted_clip(self.weight(probe.name), most, clip, exponent, narrow_range=quantizer.narrow_range)
        return clip**exponent / most, clip, exponent

    def quantizer(self, probe: Probe) -> Quantizer:
        """Return the quantizer that a probe is about."""
        assert self.quantizers is not None
        return (self.quantizers.weights if probe.kind == WEIGHT else self.quantizers.activations)[probe.name]

    def weight(self, layer: str) -> Tensor:
        """Return what a weight quantizer quantizes, detached: a parameter, or what others compute."""
        found = self._quantized[layer]
        return found.detach() if isinstance(found, Tensor) else found()

    def is_computed(self, probe: Probe) -> bool:
        """Whether a probe is about a weight that others compute: its gradient is there only while gradients pass."""
        return probe.kind == WEIGHT and not isinstance(self._quantized[probe.name], Tensor)

    def gradient(self, layer: str) -> Tensor | None:
        """Return the gradient of the parameter, dense."""
        found = self._quantized[layer]
        gradient = None if not isinstance(found, Tensor) or found.grad is None else local(found.grad)
        return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient

    @cached_property
    def _quantized(self) -> Mapping[str, Tensor | ComputedWeight | Adopted]:
        return self.quantizers.quantized_tensors(self.parameters) if self.quantizers is not None else {}

    def removed(self, probe: Probe) -> Sequence[int]:
        """Return the groups that a family's probe takes away, the least salient first."""
        groups = self.order[probe.name]
        return groups[: len(groups) - groups_kept(probe.at, len(groups))]

    @contextmanager
    def applied(self, probe: Probe) -> Iterator[None]:
        """Let the model be as the probe says while inside."""
        with self._without(self.removed(probe)) if probe.kind == FAMILY else self._at_bits(probe):
            yield

    @contextmanager
    def _at_bits(self, probe: Probe) -> Iterator[None]:
        quantizer = self.quantizer(probe)
        before = [parameter.detach().clone() for parameter in (quantizer.step_size, quantizer.clip_max)]
        step, clip, _ = self.numbers(probe)
        try:
            with torch.no_grad():
                quantizer.step_size.copy_(step)
                quantizer.clip_max.copy_(clip)
            yield
        finally:
            with torch.no_grad():
                quantizer.step_size.copy_(before[0])
                quantizer.clip_max.copy_(before[1])

    @contextmanager
    def _without(self, groups: Sequence[int]) -> Iterator[None]:
        chosen = np.zeros(self.table.n_groups + 1, dtype=bool)  # index -1 is an index of no group
        chosen[list(groups)] = True
        before: list[tuple[Tensor, int, Tensor, Tensor]] = []
        try:
            for entry in self.table.axis_maps:
                if not (entry.producing or entry.zeroed):
                    continue
                whole = (self.buffers if entry.zeroed else self.parameters)[entry.parameter].detach()
                share = share_of(whole)
                owners = entry.group_of_index if share is None else share.rows(entry.axis, entry.group_of_index)
                places = np.flatnonzero(chosen[owners])
                if len(places):
                    tensor = local(whole)
                    rows = torch.from_numpy(np.asarray(places)).to(tensor.device)
                    before.append((tensor, entry.axis, rows, tensor.index_select(entry.axis, rows)))
                    tensor.index_fill_(entry.axis, rows, 0)
            yield
        finally:
            for tensor, axis, rows, values in reversed(before):
                tensor.index_copy_(axis, rows, values)
