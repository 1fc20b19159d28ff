"""Keeping bit widths where they belong: all quantizers of a network as vectors, their steps clipped to a bit range or frozen at integers.

Comes in: quantizers and the bit range of each. Goes out: the same, with d moved in place. d alone is projected; q_m and t train freely.

A quantizer of C channels has C steps and clip values and one bit width: the mean of its channels', which each of them then takes. While
a width cannot follow its gradient, because it is fixed or stands at the upper bound, d is q_m**t over a constant, and its gradient
belongs to q_m and t (:meth:`QuantizerBank.tie`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from geta_nb.config import MAX_BITS, MIN_BITS
from geta_nb.qasso import ranks
from geta_nb.qasso.ranks import agreed
from geta_nb.qasso.signs import give_signs_back
from geta_nb.qasso.steps import levels, project_step_size
from geta_nb.quantizers import ActivationQuantizer, Histogram, bit_width, fitted_clip, largest_code
from geta_nb.sharding import shards_of

if TYPE_CHECKING:
    from geta_nb.quantizers import Quantizer

WATCHED, FADING = 4096, 0.9
"""Elements of a batch's input that are counted, and what of a count is left when the next begins."""
SIGNS = torch.tensor([1.0, -1.0], device="cpu")
"""Turns [largest, smallest] into two numbers of which the larger counts."""
CLIP_FLOOR = 1e-6
EXPONENT_RANGE = (0.1, 10.0)
"""Outside these no bit width is defined (q_m <= 0) or d under- or overflows. A gradient step may jump there; it is put back."""


class Vectors(NamedTuple):
    """d, q_m and t of all quantizers, detached: [E], one entry for each range, of which a quantizer has one or as many as channels."""

    step: Tensor
    clip: Tensor
    exponent: Tensor


class _Indices(NamedTuple):
    """Where ranges belong, made once a device: the quantizer of each, [E]; whether it is one of several, [E]; quantizers whose t trains;
    how many ranges each quantizer has, [L].
    """

    owners: Tensor
    is_channel: Tensor
    trained: Tensor
    sizes: Tensor


class QuantizerBank:
    """All quantizers of a network in one fixed order: weights, then activations.

    Args:
        weights, activations: layer -> quantizer.
        ranges: (b_l, b_u) of each, in that order.
        tensors: layer -> what its weight quantizer quantizes, or what gives it; given, ranges are fitted anew when a width falls, those
            of inputs to what :meth:`watch` let be counted.

    Attributes:
        keys: ("weight" | "activation", layer) of each quantizer.
        allowed: the fewest bits of the ranges, [L integers].
        lower, upper: the bit ranges, lists of L integers; ``lower`` may be raised on the way to a cost target.
        bound: the upper bound reached so far, [L integers].
        aim: where the upper bounds fall to, each evenly, [L integers]; None: all fall alike, to the lower ones.
        full_reduction: bits of all falls together.
        frozen: the final bits, [L integers], or None while they still move.
        shards: the ranks over which weights are sharded; None: all are whole.
    """

    def __init__(
        self,
        weights: Mapping[str, Quantizer],
        activations: Mapping[str, Quantizer],
        ranges: Sequence[tuple[int, int]],
        *,
        tensors: Mapping[str, Tensor | Callable[[], Tensor]] | None = None,
    ) -> None:
        quantizers = [*weights.values(), *activations.values()]
        self.keys = [("weight", layer) for layer in weights] + [("activation", layer) for layer in activations]
        self.quantizers = quantizers
        self.step_sizes = [q.step_size for q in quantizers]
        self.clip_maxes = [q.clip_max for q in quantizers]
        self.exponents = [q.exponent for q in quantizers]
        self.allowed = [low for low, _ in ranges]
        self.lower = list(self.allowed)
        self.upper = [high for _, high in ranges]
        self.bound = list(self.upper)
        self.frozen: list[int] | None = None
        self.aim: list[int] | None = None
        self.full_reduction = 0
        self.histograms: list[Histogram] = []
        self._tensors = None if tensors is None else [tensors[layer] for layer in weights]
        if tensors is not None:
            self.histograms = [Histogram(q.step_size.device, most=WATCHED) for q in activations.values()]
        self.shards = shards_of(t for t in self._tensors or () if isinstance(t, Tensor))
        self._sizes = [p.numel() for p in self.step_sizes]
        self._placed: dict[torch.device, _Indices] = {}
        self._levels: tuple[object, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def bind(self, parameters: Mapping[str, Tensor], layer_of: Mapping[str, str]) -> None:
        """Take other tensors of the same weights."""
        if self._tensors is not None:
            of = {layer: parameters[name] for name, layer in reversed(list(layer_of.items())) if name in parameters}
            layers = [layer for kind, layer in self.keys if kind == "weight"]
            self._tensors = [of[layer] if isinstance(old, Tensor) else old for layer, old in zip(layers, self._tensors, strict=True)]
            self.shards = shards_of(t for t in self._tensors if isinstance(t, Tensor))

    def hold_above(self, weights: Mapping[str, float], activations: Mapping[str, float]) -> None:
        """Raise the lower bounds to these bits, by layer."""
        tables = {"weight": weights, "activation": activations}
        found = {(kind, layer): bits for kind, table in tables.items() for layer, bits in table.items()}
        self.lower = [max(low, int(found.get(key, low))) for key, low in zip(self.keys, self.allowed, strict=True)]

    def aim_at(self, bits: Sequence[int]) -> None:
        """Let the bounds fall to these bits, and keep widths from falling lower."""
        self.aim, self.lower = list(bits), list(bits)

    def weight(self, index: int) -> Tensor:
        """Return what a weight quantizer quantizes; only where ranges are fitted anew."""
        assert self._tensors is not None
        found = self._tensors[index]
        return found if isinstance(found, Tensor) else found()

    def parameters(self) -> list[torch.nn.Parameter]:
        """All d, q_m and t that train."""
        return [p for p in (*self.step_sizes, *self.clip_maxes, *self.exponents) if p.requires_grad]

    @property
    def n_trained(self) -> int:
        """Length of :meth:`parameters`."""
        return 2 * len(self) + sum(t.requires_grad for t in self.exponents)

    def vectors(self) -> Vectors:
        """Return d, q_m and t as vectors on the first quantizer's device."""
        device = self.step_sizes[0].device
        step, clip = (torch.cat([p.detach().to(device).view(-1) for p in ps]) for ps in (self.step_sizes, self.clip_maxes))
        return Vectors(step, clip, self._spread(torch.stack([t.detach().to(device) for t in self.exponents])))

    @property
    def _lengths(self) -> list[int]:
        """How many of the elements of :meth:`parameters` are d, q_m and t."""
        return [sum(self._sizes), sum(self._sizes), sum(t.requires_grad for t in self.exponents)]

    def _owners(self, device: torch.device) -> Tensor:
        """Return the quantizer of each range, [E]."""
        return self._indices(device).owners

    def _indices(self, device: torch.device) -> _Indices:
        if device not in self._placed:
            sizes = torch.tensor(self._sizes, device="cpu")
            owners = torch.repeat_interleave(sizes)
            trained = torch.tensor([i for i, t in enumerate(self.exponents) if t.requires_grad], dtype=torch.int64, device="cpu")
            found = owners, (sizes > 1)[owners], trained, sizes
            self._placed[device] = _Indices(*(tensor.to(device) for tensor in found))
        return self._placed[device]

    def _spread(self, values: Tensor) -> Tensor:
        """Return one number a quantizer, [L], as one a range, [E]."""
        return values if len(values) == sum(self._sizes) else values[self._owners(values.device)]

    def _sum_channels(self, values: Tensor) -> Tensor:
        """Return the sum of each quantizer's ranges, [L], of ``values`` [E], in a fixed order on an accelerator too."""
        return torch.segment_reduce(values, "sum", lengths=self._indices(values.device).sizes, unsafe=True)

    def settle(self, flat: Tensor, *, anywhere: bool = False) -> None:
        """Do :meth:`keep_positive` and :meth:`constrain` in place on one vector that holds all of :meth:`parameters`, in their order."""
        step, clip, exponent = self._split(flat)
        clip.clamp_(min=CLIP_FLOOR)
        step.copy_(self._project(Vectors(step, clip, exponent), anywhere=anywhere))

    def _split(self, flat: Tensor) -> Vectors:
        """Return d, q_m (views) and t of a vector of :meth:`parameters`; t is put into its range, in place."""
        step, clip, free = flat.detach().split(self._lengths)
        free.clamp_(*EXPONENT_RANGE)
        exponent = free
        if len(free) < len(self):
            parts = iter(free.unbind())
            exponent = torch.stack([next(parts) if t.requires_grad else t.detach() for t in self.exponents])
        return Vectors(step, clip, self._spread(exponent))

    def keep_positive(self) -> None:
        """Put q_m and t back into the range where a bit width exists, in place; only those that just took a step."""
        clips = [p.detach() for p in self.clip_maxes if p.grad is not None]
        exponents = [p.detach() for p in self.exponents if p.grad is not None]
        if clips:
            torch._foreach_clamp_min_(clips, CLIP_FLOOR)
        if exponents:
            torch._foreach_clamp_min_(exponents, EXPONENT_RANGE[0])
            torch._foreach_clamp_max_(exponents, EXPONENT_RANGE[1])

    def hold(self) -> None:
        """Put numbers that no step of ours moved to where a bit width exists, and every d to its range, or to the frozen bits, in place."""
        if self.keys:
            torch._foreach_clamp_min_([p.detach() for p in self.clip_maxes], CLIP_FLOOR)
            torch._foreach_clamp_min_([p.detach() for p in self.exponents], EXPONENT_RANGE[0])
            torch._foreach_clamp_max_([p.detach() for p in self.exponents], EXPONENT_RANGE[1])
            self.constrain()

    def constrain(self, *, anywhere: bool = False) -> None:
        """Project every d to its bit range, or set it by the frozen bits, in place.

        Args:
            anywhere: only keep a width between 2 and 32 bits: at 16 bits d is smaller than a usual ``lr_quant``, and one step of Adam
                can make it negative.
        """
        if self.keys:
            self.write(self._project(self.vectors(), anywhere=anywhere))

    def _project(self, v: Vectors, *, anywhere: bool) -> Tensor:
        """Return every d, [E], inside its range, those of one quantizer at one width."""
        few, many = self.range_levels(v.step, anywhere=anywhere)
        step = project_step_size(v.step, v.clip, v.exponent, few, many)
        if len(step) == len(self):
            return step
        index = self._owners(step.device)
        top = v.clip**v.exponent
        ratio = torch.log(top / step)  # of equal ratios the mean is that ratio: what is at a bound stays there
        mean = (self._sum_channels(ratio) / self._indices(step.device).sizes)[index]
        return torch.minimum(torch.maximum(top * torch.exp(-mean), top / many), top / few)

    def tie(self, flat: torch.nn.Parameter | None) -> None:
        """Where a width cannot grow, hand the gradient of its d on, in place: at fixed bits d = q_m**t / L.

        q_m gets t d / q_m of it, and t gets d ln q_m. Channels hand theirs on always: apart they move no width.

        Args:
            flat: one vector that holds all of :meth:`parameters` in their order, with its gradient; None: they have their own.
        """
        if flat is not None:
            assert flat.grad is not None
            values, (step, clip, exponent) = self._split(flat), flat.grad.split(self._lengths)
            self._hand_on(values, step, clip, exponent)
            return
        steps, clips, free = (
            [p.grad for p in ps if p.grad is not None] for ps in (self.step_sizes, self.clip_maxes, self.exponents)
        )
        if len(steps) < len(self) or len(clips) < len(self) or len(free) < self._lengths[2]:
            return  # some part of the network took no part in this step
        device = self.step_sizes[0].device
        step, clip = (torch.cat([g.to(device).view(-1) for g in found]) for found in (steps, clips))
        exponent = torch.stack([g.to(device) for g in free]) if free else step.new_zeros(0)
        self._hand_on(self.vectors(), step, clip, exponent)
        self._write(steps, step)
        self._write(clips, clip)
        torch._foreach_copy_(free, list(exponent.unbind()))

    def _hand_on(self, v: Vectors, step: Tensor, clip: Tensor, exponent: Tensor) -> None:
        """Change gradients in place: of d and q_m, [E], and of those t that train."""
        if self.frozen is None:
            _, many = self.range_levels(v.step)
            tied = v.step * many <= v.clip**v.exponent * (1 + 1e-5)
            given = torch.where(tied | self._indices(step.device).is_channel, step, 0)
            step.masked_fill_(tied, 0)
        else:
            given = step.clone()
            step.zero_()
        given *= v.step
        clip.add_(given * v.exponent / v.clip)
        if len(exponent):
            sums = given * v.clip.log()
            if len(sums) > len(self):
                sums = self._sum_channels(sums)
            trained = self._indices(sums.device).trained
            exponent.add_(sums if len(trained) == len(sums) else sums[trained])

    def reduce_bound(self, reduction: int) -> list[int]:
        """Lower the upper bounds to ``reduction`` bits below their start, never below the lower ones; return the quantizers it moves."""
        bound = self.reduced_bound(reduction)
        if bound == self.bound:
            return []
        self.bound = bound
        return [i for i, (now, most) in enumerate(zip(self.bits(), bound, strict=True)) if now > most + 0.01]

    def reduced_bound(self, reduction: int) -> list[int]:
        """Return what :meth:`reduce_bound` would set, [L integers]."""
        plain = [max(low, high - reduction) for low, high in zip(self.lower, self.upper, strict=True)]
        if self.aim is None:
            return plain
        share = min(reduction / self.full_reduction, 1.0) if self.full_reduction else 1.0
        evenly = [high - math.floor((high - aim) * share + 1e-9) for aim, high in zip(self.aim, self.upper, strict=True)]
        return [min(now, even, usual) for now, even, usual in zip(self.bound, evenly, plain, strict=True)]

    def range_levels(self, like: Tensor, *, anywhere: bool = False) -> tuple[Tensor, Tensor]:
        """Return :func:`levels` of the present lower and upper bit bound, [E] each; made anew only when a bound moved."""
        low, high = (self.lower, self.bound) if self.frozen is None else (self.frozen, self.frozen)
        if anywhere:
            low, high = [MIN_BITS] * len(self), [MAX_BITS] * len(self)
        signs = tuple(int(q.signed) for q in self.quantizers)
        key = (tuple(low), tuple(high), signs, like.device, like.dtype)
        if self._levels is None or self._levels[0] != key:
            few, many = (self._spread(levels(bits, like, signs)) for bits in (low, high))
            self._levels = (key, few, many)
        return self._levels[1], self._levels[2]

    def write(self, steps: Tensor) -> None:
        """Set every d, in place, from ``steps`` [E]."""
        self._write(self.step_sizes, steps)

    def _write(self, parameters: Sequence[Tensor], values: Tensor) -> None:
        parts = zip(values.split(self._sizes), parameters, strict=True)
        torch._foreach_copy_([p.detach() for p in parameters], [part.view_as(p) for part, p in parts])

    def bits(self) -> list[float]:
        """Return the present bit widths, in bits; waits for the device. One without a range (not yet calibrated) counts its upper bound."""
        if not self.keys:
            return []
        signs = self._spread(torch.tensor([float(q.signed) for q in self.quantizers], dtype=torch.float64, device="cpu"))
        v = self.vectors()
        widths = bit_width(*(x.double() for x in v), signed=signs.to(v.step.device)).cpu().split(self._sizes)
        return [float(high if math.isnan(b) else b) for b, high in zip([float(w.mean()) for w in widths], self.upper, strict=True)]

    def rounded_bits(self, bounds: Sequence[int]) -> list[int]:
        """Return the present bits rounded to integers inside [lower, bounds]; of rank 0 in a distributed run, where all ranks must ask."""
        rounded = [int(min(max(round(b), low), high)) for b, low, high in zip(self.bits(), self.lower, bounds, strict=True)]
        return agreed(rounded, self.step_sizes[0].device) if rounded else rounded

    def freeze(self, bits: Sequence[int]) -> None:
        """Fix all bit widths; from now on :meth:`constrain` sets d from q_m, t and these."""
        moved = [i for i, (now, fixed) in enumerate(zip(self.bits(), bits, strict=True)) if now > fixed + 0.01]
        self.frozen = list(bits)
        self.constrain()
        self.refit(moved, bits)

    @property
    def watching(self) -> bool:
        """Whether inputs are being counted."""
        inputs = self.quantizers[len(self) - len(self.histograms) :]
        return any(isinstance(q, ActivationQuantizer) and q.watcher is not None for q in inputs)

    def counted(self) -> dict[str, Tensor]:
        """Return all histograms as plain tensors: counts, [L_a, bins], and extremes, [L_a, 2]."""
        if not self.histograms:
            return {}
        return {"counts": torch.stack([h.counts for h in self.histograms]), "extremes": torch.stack([h.extremes for h in self.histograms])}

    def load_counted(self, counted: Mapping[str, Tensor]) -> None:
        """Restore :meth:`counted`."""
        for i, histogram in enumerate(self.histograms):
            histogram.counts.copy_(counted["counts"][i])
            histogram.extremes.copy_(counted["extremes"][i])

    def follow(self) -> None:
        """Let what was counted go where the quantizers are, which may have moved."""
        for quantizer, histogram in zip(self.quantizers[len(self) - len(self.histograms) :], self.histograms, strict=True):
            histogram.to(quantizer.step_size.device)

    def watch(self, on: bool, *, fade: bool = True) -> None:
        """Let the inputs of the coming step be counted, or not; what was counted before fades, unless the step had begun already."""
        for quantizer, histogram in zip(self.quantizers[len(self) - len(self.histograms) :], self.histograms, strict=True):
            assert isinstance(quantizer, ActivationQuantizer)
            quantizer.watcher = histogram if on else None
            if on and fade:
                histogram.counts.mul_(FADING)

    @torch.no_grad()
    def refit(self, moved: Sequence[int], bits: Sequence[int]) -> None:
        """Fit q_m of some quantizers to what they quantize, at ``bits`` [L], and set d; nothing where ranges are not fitted anew.

        All ranks of a distributed run must call it: histograms are added up over them.
        """
        if self._tensors is None or not moved:
            return
        first = len(self._tensors)
        self.share_histograms()
        give_signs_back([layer for _, layer in self.keys], self.quantizers, self.histograms, moved)
        for i in moved:
            quantizer = self.quantizers[i]
            clip, exponent = quantizer.clip_max.detach(), quantizer.exponent.detach()
            most = largest_code(bits[i], signed=quantizer.signed)
            if i < first:
                clip.copy_(fitted_clip(self.weight(i), most, clip, exponent, narrow_range=quantizer.narrow_range))
            elif bool((seen := self.histograms[i - first]).counts.any()):
                clip.fill_(seen.fitted_clip(most, float(exponent)))
            clip.clamp_(min=CLIP_FLOOR)
            quantizer.step_size.copy_(clip**exponent / most)

    def share_histograms(self) -> None:
        """Let all ranks have the mean of what each counted; all ranks must call it."""
        if self.histograms:
            counted = ranks.mean(torch.stack([h.counts for h in self.histograms]))
            extremes = ranks.largest(torch.stack([h.extremes * SIGNS.to(h.extremes) for h in self.histograms]))
            for histogram, counts, ends in zip(self.histograms, counted, extremes, strict=True):
                histogram.counts.copy_(counts)
                histogram.extremes.copy_(ends * SIGNS.to(ends))

    def by_layer(self, kind: str, values: Sequence[float]) -> dict[str, float]:
        """Return the values of the ``"weight"`` or ``"activation"`` quantizers by layer."""
        return {layer: value for (k, layer), value in zip(self.keys, values, strict=True) if k == kind}
