"""Ask every question: make one change, look at the loss, take the change back. Or ask the gradients, and measure a sample.

In: a model, its groups and quantizers, batches and a loss. Out: a :class:`Sensitivity`. What is measured is kept in a file as it comes,
so that a run that was stopped goes on.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geta_nb.config import MAX_BITS, MIN_BITS
from geta_nb.cost import CostModel
from geta_nb.errors import ConfigError, InputError
from geta_nb.groups import GroupTable
from geta_nb.qasso import FAMILY, INPUT, WEIGHT
from geta_nb.quantizers import Histogram, Quantizers
from geta_nb.sensitivity.curves import NOTHING, link_of
from geta_nb.sensitivity.front import FrontPoint
from geta_nb.sensitivity.gradients import NoGradientError, estimated, group_products, no_gradient, order_of_families
from geta_nb.sensitivity.losses import Losses
from geta_nb.sensitivity.probes import Probe, Prober
from geta_nb.sensitivity.progress import progress
from geta_nb.sensitivity.result import Network, Rise, Sensitivity

BITS = (2, 3, 4, 5, 6, 8)
KEPT = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
ESTIMATES = ("auto", "measured", "gradient")
AFFORDABLE = 2e13
"""Multiply-accumulates up to which "auto" measures: minutes on a few cores."""
SAMPLE = 24
"""Probes that are measured beside an estimate, to say how well it ranks them."""
LINKED = 16
"""Plans of the front that are tried whole."""
EVERY = 2.0
"""Seconds after which the file is written anew."""
Floats = NDArray[np.float64]


class Asked(NamedTuple):
    """What is asked for: see ``GETA.sensitivity``."""

    bits: tuple[int, ...] = BITS
    kept: tuple[float, ...] = KEPT
    estimate: str = "auto"
    seed: int = 0

    def check(self) -> Asked:
        """Return the same in order, each size once.

        Raises:
            ConfigError: bits or shares that are none, or no such estimate.
        """
        if not all(isinstance(b, int) and not isinstance(b, bool) and MIN_BITS <= b <= MAX_BITS for b in self.bits):
            raise ConfigError("sensitivity: bits.", expected=f"whole numbers from {MIN_BITS} to {MAX_BITS}", got=repr(self.bits))
        if not all(isinstance(s, (int, float)) and not isinstance(s, bool) and 0 < s <= 1 for s in self.kept):
            raise ConfigError("sensitivity: kept.", expected="shares of a family's groups, 0 < share <= 1", got=repr(self.kept))
        if not self.bits and not self.kept:
            raise ConfigError("sensitivity: nothing is asked.", expected="bits or kept shares", got="neither")
        if self.estimate not in ESTIMATES:
            raise ConfigError("sensitivity: no such estimate.", expected=" or ".join(ESTIMATES), got=repr(self.estimate))
        return self._replace(bits=tuple(sorted({*self.bits})), kept=tuple(sorted({float(s) for s in self.kept})))


def find_sensitivity(
    table: GroupTable,
    parameters: Mapping[str, Tensor],
    quantizers: Quantizers | None,
    cost: CostModel,
    losses: Losses,
    asked: Asked,
    *,
    path: str | PathLike[str] | None = None,
) -> Sensitivity:
    """Return how much the loss rises; see ``GETA.sensitivity``. The model is as it was, whatever happens."""
    base = losses()
    if not np.isfinite(base).all():
        number = int(np.flatnonzero(~np.isfinite(base))[0])
        raise InputError("sensitivity: the loss is not finite as it is.", at=f"batch {number}", expected="a number", got=str(base[number]))
    products = _products(table, parameters, losses)
    order = order_of_families(table, parameters, products)
    buffers = dict(losses.model.named_buffers(remove_duplicate=False))
    prober = Prober(table, parameters, quantizers, order, _histograms(quantizers, losses), buffers)
    probes = prober.probes(asked.bits, asked.kept)
    samples = sum(losses.samples(number) for number in range(len(base)))
    cheap = len(probes) * samples * cost.dense.macs_full <= AFFORDABLE
    measure = asked.estimate == "measured" or (asked.estimate == "auto" and (cheap or products is None))
    # a few losses tell other weights and other batches from these
    identity = {"groups": table.n_groups, "seed": asked.seed, "losses": [float(f"{value:.6g}") for value in base[:8]]}
    how, network = "measured" if measure else "gradient", Network(cost, table)
    start = Sensitivity(float(base.mean()), {}, order, len(base), how, identity, network=network)
    kept = _Kept(start, None if path is None else Path(path))
    if measure:
        with kept.writing():
            for probe in progress([probe for probe in probes if probe not in kept.rises], "sensitivity", "probe"):
                kept.add(probe, _measured(prober, losses, probe, base))
            return kept.finish(probes, lambda found: _link(prober, losses, base, found))
    if products is None:
        raise no_gradient()
    rises = {probe: Rise(rise) for probe, rise in estimated(prober, losses, probes, products).items()}
    sample = random.Random(asked.seed).sample(probes, min(SAMPLE, len(probes)))
    truth = [_measured(prober, losses, probe, base).mean for probe in progress(sample, "check", "probe")]
    correlation = _rank_correlation([rises[probe].mean for probe in sample], truth)
    found = replace(start, rises=rises, rank_correlation=correlation, checked=len(sample))
    found = replace(found, link=_link(prober, losses, base, found))
    if path is not None:
        found.save(path)
    return found


def real_rises(
    table: GroupTable,
    parameters: Mapping[str, Tensor],
    quantizers: Quantizers | None,
    losses: Losses,
    found: Sensitivity,
    plans: Iterable[FrontPoint],
) -> list[Rise]:
    """Return how much the loss really rises with each plan put into the model whole, before it is trained on; the model is as it was.

    Args:
        table, parameters, quantizers: of the model.
        losses: on any batches, not only those that the rises were measured on.
        found: its order says which groups go.
        plans: points of its front.
    """
    base = losses()
    buffers = dict(losses.model.named_buffers(remove_duplicate=False))
    prober = Prober(table, parameters, quantizers, found.order, _histograms(quantizers, losses), buffers)
    return [_real(prober, losses, base, plan) for plan in progress(list(plans), "plans", "plan")]


def _real(prober: Prober, losses: Losses, base: Floats, plan: FrontPoint) -> Rise:
    sizes = ((WEIGHT, plan.bits), (INPUT, plan.input_bits), (FAMILY, plan.kept))
    with ExitStack() as changes:
        for kind, table in sizes:
            for name, at in table.items():
                if at != NOTHING[kind]:
                    changes.enter_context(prober.applied(Probe(kind, name, float(at))))
        return _rise(losses() - base)


def _link(prober: Prober, losses: Losses, base: Floats, found: Sensitivity) -> tuple[tuple[float, float], ...]:
    """Try plans of the front whole, evenly by the logarithm of what their parts lose alone: what they lose together."""
    points = [point for point in replace(found, link=()).front().points if 0 < point.rise < math.inf]
    if not points:
        return ()
    logs = np.log([point.rise for point in points])
    chosen = [points[i] for i in dict.fromkeys(int(np.abs(logs - at).argmin()) for at in np.linspace(logs[0], logs[-1], LINKED))]
    return link_of((p.rise, _real(prober, losses, base, p).mean) for p in progress(chosen, "plans", "plan"))


def _products(table: GroupTable, parameters: Mapping[str, Tensor], losses: Losses) -> Floats | None:
    """<x, g> of groups, [B, G]; None where the loss has no gradient."""
    try:
        return group_products(table, parameters, losses)
    except NoGradientError:
        return None


def _histograms(quantizers: Quantizers | None, losses: Losses) -> dict[str, Histogram]:
    """Count the inputs of all layers that are quantized, with none of them quantized; layers that nothing reaches are left out."""
    inputs = quantizers.activations if quantizers is not None else {}
    found = {layer: Histogram(quantizer.clip_max.device) for layer, quantizer in inputs.items()}
    try:
        for layer, quantizer in inputs.items():
            quantizer.observer = found[layer]
        if inputs:
            losses()
    finally:
        for quantizer in inputs.values():
            quantizer.observer = None
    for histogram in found.values():
        if losses.shards is not None:
            histogram.add_up(losses.shards)
    return {layer: histogram for layer, histogram in found.items() if histogram.called}


def _measured(prober: Prober, losses: Losses, probe: Probe, base: Floats) -> Rise:
    with prober.applied(probe):
        return _rise(losses() - base)


def _rise(rises: Floats) -> Rise:
    several = len(rises) > 1 and bool(np.isfinite(rises).all())
    return Rise(float(rises.mean()), float(rises.std(ddof=1) / math.sqrt(len(rises))) if several else None)


def _rank_correlation(estimated_: Sequence[float], measured: Sequence[float]) -> float | None:
    finite = [(e, m) for e, m in zip(estimated_, measured, strict=True) if math.isfinite(e) and math.isfinite(m)]
    if len({e for e, _ in finite}) < 2 or len({m for _, m in finite}) < 2:
        return None
    from scipy.stats import spearmanr  # a fifth of what importing the package would take

    return float(spearmanr(*zip(*finite, strict=True)).statistic)


class _Kept:
    """Rises as they come, in a file too.

    Raises:
        InputError: a file of another network, other weights or other batches; it stays.
    """

    def __init__(self, start: Sensitivity, path: Path | None) -> None:
        self._start, self._path, self._written = start, path, time.monotonic()
        self.rises: dict[Probe, Rise] = {}
        self._link: tuple[tuple[float, float], ...] = ()
        if path is not None and path.exists():
            found = Sensitivity.load(path)
            mine, theirs = ((s.identity, s.estimate, s.order) for s in (start, found))
            if mine != theirs:
                raise InputError(
                    "sensitivity: the file is of another network, of other weights, or of other batches.", at=path,
                    expected=f"losses {start.identity['losses'][:2]} ...", got=f"losses {found.identity.get('losses', [])[:2]} ...",
                    hint="another path, or delete the file",
                )  # fmt: skip
            self.rises.update(found.rises)
            self._link = found.link

    def add(self, probe: Probe, rise: Rise) -> None:
        """Take one in."""
        self.rises[probe], self._link = rise, ()
        if time.monotonic() - self._written > EVERY:
            self._write()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Leave all that was found in the file, also where it is stopped."""
        try:
            yield
        finally:
            self._write()

    def _write(self) -> None:
        if self._path is not None:
            self._with(self.rises).save(self._path)
            self._written = time.monotonic()

    def _with(self, rises: Mapping[Probe, Rise]) -> Sensitivity:
        return replace(self._start, rises=dict(rises), link=self._link)

    def finish(self, probes: Sequence[Probe], link: Callable[[Sensitivity], tuple[tuple[float, float], ...]]) -> Sensitivity:
        """Return these rises, in their order, with their link, which is made where the file has none of exactly these."""
        found = self._with({probe: self.rises[probe] for probe in probes})
        if not self._link or set(self.rises) != set(probes):
            found = replace(found, link=link(found))
            self._link = found.link if set(self.rises) == set(probes) else ()
        return found

