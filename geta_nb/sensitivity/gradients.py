"""What gradients say: which groups matter least, and how much the loss would rise, to second order and without trying it.

For a change delta of a tensor whose gradients are g over batches of N samples each,

    rise ~ N / 2 * mean over batches of <delta, g>**2

which is delta^T F delta / 2 for F the empirical Fisher information of a sample, since gradients of samples vary independently where
training has settled. delta is Q_b(x) - Q(x) for bits, with Q as it is now, and -x of the groups that go.

Source: Theis et al. 2018, arXiv:1801.05787 (pruning); Dong et al. 2020, arXiv:1911.03852 (bits, with the Hessian in place of F).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geta_nb.errors import InputError
from geta_nb.groups import GroupTable
from geta_nb.qasso import FAMILY, INPUT, Members
from geta_nb.quantizers import Quantizer, fake_quantize
from geta_nb.sensitivity.losses import Losses
from geta_nb.sensitivity.probes import Probe, Prober
from geta_nb.sensitivity.progress import progress
from geta_nb.sharding import Shards, Share, is_sharded, local, share_of

Floats = NDArray[np.float64]


class NoGradientError(InputError):
    """A loss that does not depend on the model as far as autograd can see."""


def no_gradient() -> NoGradientError:
    """Return the error for a loss without gradient."""
    hint = 'estimate="measured"'
    return NoGradientError("sensitivity: the loss has no gradient.", expected="one that depends on the model", hint=hint)


@contextmanager
def _gradients(losses: Losses, parameters: Iterable[Tensor], leaves: list[Tensor] | None = None) -> Iterator[Callable[[int], None]]:
    """Give a function that fills ``.grad`` of the parameters with that of one batch; all is as before afterwards.

    ``leaves`` fills with further tensors while a batch runs: gradients pass those too.
    """
    further = leaves if leaves is not None else []
    tensors = list({id(p): p for p in parameters if p.is_floating_point()}.values())
    before = [(p, p.grad, p.requires_grad) for p in tensors]
    whole = [] if losses.shards is None else [(p, p.grad) for p in losses.model.parameters()]  # a whole pass reaches all

    def of(number: int) -> None:
        for p in tensors:
            p.grad = None
        with torch.enable_grad():
            loss = losses.of(number)
        if not loss.requires_grad:
            raise no_gradient()
        if losses.shards is not None:  # what a rank has of a parameter gets its gradient from a whole pass
            loss.backward()
            further.clear()
            return
        found = torch.autograd.grad(loss, [*tensors, *further], allow_unused=True)
        further.clear()
        for p, gradient in zip(tensors, found, strict=False):
            p.grad = gradient

    try:
        for p in tensors:
            p.requires_grad_(True)
        with losses.repeatable():
            yield of
    finally:
        for p, gradient, wanted in before:
            p.grad = gradient
            p.requires_grad_(wanted)
        for p, gradient in whole:
            p.grad = gradient


def group_products(table: GroupTable, parameters: Mapping[str, Tensor], losses: Losses) -> Floats:
    """Return <x, g> of each group for each batch, [B, G]."""
    members = Members(table, parameters)
    rows = []
    with _gradients(losses, parameters.values()) as fill:
        for number in progress(range(len(losses.batches)), "gradients", "batch"):
            fill(number)
            rows.append(members.products().per_group.detach().double().cpu())
    found: Floats = np.nan_to_num(torch.stack(rows).numpy(), posinf=0.0, neginf=0.0)
    return found


def order_of_families(table: GroupTable, parameters: Mapping[str, Tensor], products: Floats | None) -> dict[str, tuple[int, ...]]:
    """Return family -> its groups, the least salient first: by the root of the mean of <x, g>^2; by |x| where there is no gradient.

    Args:
        products: [B, G]; None: the loss has no gradient.
    """
    norms = Members(table, parameters).square_sums()[0].double().sqrt().cpu().numpy()
    scores = norms if products is None else np.sqrt((products**2).mean(0))
    order = {}
    for family, name in enumerate(table.family_names):
        groups = np.flatnonzero(table.family_of == family)
        own = scores[groups] if scores[groups].any() else norms[groups]
        order[name] = tuple(int(group) for group in groups[np.argsort(own, kind="stable")])
    return order


def estimated(prober: Prober, losses: Losses, probes: Sequence[Probe], products: Floats) -> dict[Probe, float]:
    """Return the estimated rise of each probe.

    Args:
        products: <x, g> of each group for each batch, [B, G].
    """
    samples = np.array([losses.samples(number) for number in range(len(losses.batches))], dtype=np.float64)
    of_families = [probe for probe in probes if probe.kind == FAMILY]
    found = {probe: float((samples * products[:, list(prober.removed(probe))].sum(1) ** 2).mean() / 2) for probe in of_families}
    asked = [probe for probe in probes if probe.kind != FAMILY]
    if asked:
        numbers = {probe: prober.numbers(probe) for probe in asked}
        dots = _Dots(prober, numbers, losses.shards)
        rows = []
        with _gradients(losses, prober.parameters.values(), dots.leaves) as fill, dots.listening():
            for number in progress(range(len(losses.batches)), "estimate", "batch"):
                fill(number)
                rows.append(dots.take())
        squares = samples[:, None] * np.nan_to_num(np.array(rows)) ** 2
        found |= dict(zip(asked, (squares.mean(0) / 2).tolist(), strict=True))
    return {probe: found[probe] for probe in probes}


class _Dots:
    """<Q_b(x) - Q(x), g> of each probe of bits, for the batch that was just run: parameters afterwards, the rest while gradients pass."""

    def __init__(self, prober: Prober, numbers: Mapping[Probe, tuple[Tensor, Tensor, Tensor]], shards: Shards | None) -> None:
        self._prober, self._numbers, self._shards = prober, numbers, shards
        self._heard: dict[Probe, Tensor] = {}
        self._passing: dict[Quantizer, list[Probe]] = {}
        for probe in numbers:
            if probe.kind == INPUT or prober.is_computed(probe):
                self._passing.setdefault(prober.quantizer(probe), []).append(probe)
        self.leaves: list[Tensor] = []  # inputs that nothing trained made: no gradient would pass them

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Look at the gradients of quantized inputs, and of weights that others compute, while inside."""
        try:
            for quantizer in self._passing:
                quantizer.stand_in = partial(self._pass, quantizer)
            yield
        finally:
            for quantizer in self._passing:
                quantizer.stand_in = None

    def _pass(self, quantizer: Quantizer, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not x.requires_grad:
            x = x.detach().requires_grad_()
            self.leaves.append(x)
        now = fake_quantize(x, quantizer.step_size, quantizer.clip_max, quantizer.exponent, **quantizer.kind._asdict())
        if x.requires_grad:
            x.register_hook(partial(self._hear, quantizer, x.detach(), now.detach()))
        return now

    def _hear(self, quantizer: Quantizer, x: Tensor, now: Tensor, gradient: Tensor) -> None:
        for probe in self._passing[quantizer]:
            dot = _dot(x, now, gradient, self._numbers[probe], quantizer.kind._asdict())
            self._heard[probe] = self._heard.get(probe, dot.new_zeros(())) + dot

    @torch.no_grad()
    def take(self) -> list[float]:
        """Return the products, one for each probe, and forget them."""
        found, self._heard = self._heard, {}
        zero, heard = torch.zeros((), device="cpu"), {probe for probes in self._passing.values() for probe in probes}
        parts = [found.get(probe, zero) if probe in heard else self._of_weight(probe) for probe in self._numbers]
        values = torch.stack([part.double().cpu() for part in parts])
        if self._shards is not None:  # rows of a weight add up, and shares of a batch make one
            rows = torch.tensor([probe not in heard and is_sharded(self._prober.weight(probe.name)) for probe in self._numbers])
            values = torch.where(rows, self._shards.sum(values), self._shards.mean(values))
        return [float(value) for value in values]

    def _of_weight(self, probe: Probe) -> Tensor:
        weight, quantizer = self._prober.weight(probe.name), self._prober.quantizer(probe)
        gradient = self._prober.gradient(probe.name)
        if gradient is None:
            return torch.zeros((), device="cpu")
        kind, share, here = quantizer.kind._asdict(), share_of(weight), local(weight)
        step, clip, exponent = (_rows(number.detach(), share) for number in (quantizer.step_size, quantizer.clip_max, quantizer.exponent))
        wanted, top, bent = self._numbers[probe]
        now = fake_quantize(here, step, clip, exponent, **kind)
        return _dot(here, now, gradient, (_rows(wanted, share), _rows(top, share), bent), kind)


def _rows(numbers: Tensor, share: Share | None) -> Tensor:
    """Return those of one number a channel that belong to the rows here."""
    if share is None or not numbers.ndim or numbers.shape[share.axis] == 1:
        return numbers
    return numbers.narrow(share.axis, share.start, share.stop - share.start)


def _dot(x: Tensor, now: Tensor, gradient: Tensor, numbers: tuple[Tensor, Tensor, Tensor], kind: Mapping[str, bool]) -> Tensor:
    with torch.no_grad():
        step, clip, exponent = numbers
        return ((fake_quantize(x, step, clip, exponent, **kind) - now) * gradient).sum(dtype=torch.float64)
