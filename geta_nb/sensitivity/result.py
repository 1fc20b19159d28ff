"""What was found: rises of the loss by layer and bits, by family and share. Plain data that is saved as JSON, and what follows from it.

In: rises, and the network's costs and groups. Out: the numbers, the predicted rise of a plan, fronts and budgets.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from geta_nb.budget import Budget
from geta_nb.cost import CostModel
from geta_nb.errors import ArtifactError, InputError
from geta_nb.groups import BoolArray, GroupList, GroupTable, IntArray, family_limits
from geta_nb.qasso import FAMILY, INPUT, KINDS, WEIGHT
from geta_nb.sensitivity.curves import NOTHING, linked, rise_at
from geta_nb.sensitivity.front import Front, find_front
from geta_nb.sensitivity.order import order_by_rise
from geta_nb.sensitivity.probes import Probe
from geta_nb.views import Shown

FORMAT = "geta-nb sensitivity 1"


class Rise(NamedTuple):
    """How much the loss rises: the mean over batches, and its standard error (None: estimated, or one batch alone)."""

    mean: float
    error: float | None = None


class Analysed(Protocol):
    """What a ``GETA`` knows of its network."""

    @property
    def cost(self) -> CostModel: ...  # noqa: D102

    @property
    def groups(self) -> GroupList: ...  # noqa: D102


class Network(NamedTuple):
    """What a front needs besides rises: the costs and the groups of the network."""

    cost: CostModel
    table: GroupTable


@dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """How much the loss rises with one layer at fewer bits, or one family with fewer groups, all else as it was.

    Attributes:
        loss: of the network as it was, mean over batches.
        rises: probe -> rise.
        order: family -> its groups, the least salient first: the order in which they were taken away.
        batches: how many.
        estimate: "measured", or "gradient".
        identity: of the network, its weights and the batches.
        rank_correlation: Spearman's, of estimated and measured rises, over ``checked`` of the probes; None where all are measured.
        checked: so many.
        link: (sum of rises, real rise) of plans that were tried whole: what parts come to together. Empty: their sum.
        network: costs and groups; None until it is bound to a ``GETA`` (``Sensitivity.load(path, geta)``).
    """

    loss: float
    rises: Mapping[Probe, Rise]
    order: Mapping[str, tuple[int, ...]]
    batches: int
    estimate: str
    identity: Mapping[str, Any]
    rank_correlation: float | None = None
    checked: int = 0
    link: tuple[tuple[float, float], ...] = ()
    network: Network | None = field(default=None, compare=False)

    @property
    def by_layer(self) -> dict[str, dict[float, float]]:
        """Layer -> bits of its weights -> rise."""
        return self._by(WEIGHT)

    @property
    def by_input(self) -> dict[str, dict[float, float]]:
        """Layer -> bits of its inputs -> rise."""
        return self._by(INPUT)

    @property
    def by_family(self) -> dict[str, dict[float, float]]:
        """Family -> share of its groups kept -> rise."""
        return self._by(FAMILY)

    @property
    def errors(self) -> dict[Probe, float]:
        """Standard errors of what was measured on several batches."""
        return {probe: rise.error for probe, rise in self.rises.items() if rise.error is not None}

    def _by(self, kind: str) -> dict[str, dict[float, float]]:
        found: dict[str, dict[float, float]] = {}
        for probe, rise in self.rises.items():
            if probe.kind == kind:
                at = int(probe.at) if kind != FAMILY and probe.at == int(probe.at) else probe.at
                found.setdefault(probe.name, {})[at] = rise.mean
        return found

    def fragile(self) -> list[tuple[str, str, float, float]]:
        """Return (kind, name, smallest size asked, rise there) of each layer and family, the most fragile first."""
        smallest: dict[tuple[str, str], Probe] = {}
        for probe in self.rises:
            key = probe.kind, probe.name
            smallest[key] = min(smallest.get(key, probe), probe, key=lambda found: found.at)
        rows = [(probe.kind, probe.name, probe.at, self.rises[probe].mean) for probe in smallest.values()]
        return sorted(rows, key=lambda row: -row[3])

    def predict(self, alive: BoolArray, weight_bits: Mapping[str, float], activation_bits: Mapping[str, float]) -> dict[str, float]:
        """Return what a plan costs in loss, part by part; the prediction is their sum.

        Each part alone has the rise that was found for it. Together they come to more: as plans of the front did that were tried whole
        (``link``), so that all parts are scaled alike.

        Args:
            alive: groups that live, bool [G]; counted by family, as if the least salient ones had gone.
            weight_bits: layer -> bits; a layer left out stays as it is.
            activation_bits: the same of inputs.

        Returns:
            "weights of LAYER", "input of LAYER", "groups of FAMILY" -> rise.
        """
        alone = dict(self._parts(alive, weight_bits, activation_bits))
        total = math.fsum(alone.values())
        scale = linked(self.link, total) / total if 0 < total < math.inf else 1.0
        return {part: rise * scale for part, rise in alone.items()}

    def _parts(self, alive: BoolArray, weights: Mapping[str, float], inputs: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        for words, rises, bits, kind in (("weights of", self.by_layer, weights, WEIGHT), ("input of", self.by_input, inputs, INPUT)):
            for layer, known in rises.items():
                if layer in bits:
                    yield f"{words} {layer}", rise_at(known, float(bits[layer]), NOTHING[kind])
        table = self._bound("predict").table
        total = np.bincount(table.family_of, minlength=len(table.family_names))
        kept = np.bincount(table.family_of[alive], minlength=len(table.family_names))
        for name, whole, living in zip(table.family_names, total, kept, strict=True):
            if name in self.by_family:
                yield f"groups of {name}", rise_at(self.by_family[name], living / max(whole, 1), NOTHING[FAMILY])

    def removal_order(self, budget: Budget) -> IntArray:
        """Return all groups that a budget lets go, those first that save most for the predicted rise."""
        network = self._bound("removal_order")
        limits, measure = family_limits(network.table, budget), budget.target[0] if budget.target else "relative_bops"
        return order_by_rise(self.by_family, self.order, network.cost, network.table, limits, measure)

    def front(self, cost: str = "relative_bops") -> Front:
        """Return the least predicted rise at each cost: from the whole network down, each step the one that saves most for its rise.

        Args:
            cost: "relative_bops", "relative_bops_full" or "size_bytes".

        Raises:
            ConfigError: an unknown cost.
            InputError: this was loaded without a ``GETA``.
        """
        network = self._bound("front")
        rises = {(kind, name): known for kind in KINDS for name, known in self._by(kind).items()}
        return find_front(rises, self.order, network.cost, cost, link=self.link)

    def suggest(self, max_rise: float, *, cost: str = "relative_bops") -> Budget:
        """Return the budget of least cost whose predicted rise is at most ``max_rise``, in units of the loss.

        The prediction is that of the network before it is trained on: what training repairs is not in it.
        """
        return self.front(cost).within(max_rise).budget

    def _bound(self, who: str) -> Network:
        if self.network is None:
            hint = "gt.Sensitivity.load(path, geta)"
            raise InputError(f"{who}: these rises know no network.", expected="a GETA beside the file", got="none", hint=hint)
        return self.network

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values; a rise that is not finite is None."""
        rows = [[*probe, rise.mean if math.isfinite(rise.mean) else None, rise.error] for probe, rise in self.rises.items()]
        return {
            "format": FORMAT, "loss": self.loss, "batches": self.batches, "estimate": self.estimate, "identity": dict(self.identity),
            "rank_correlation": self.rank_correlation, "checked": self.checked, "rises": rows,
            "link": [list(pair) for pair in self.link], "order": {name: list(groups) for name, groups in self.order.items()},
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_dict` as JSON, whole or not at all, and return the path."""
        target = Path(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            partial.write_text(json.dumps(self.to_dict(), allow_nan=False) + "\n", encoding="utf-8")
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str], geta: Analysed | None = None) -> Sensitivity:
        """Return what :meth:`save` wrote.

        Args:
            path: the file.
            geta: the network it is of, for predictions and fronts; None: the numbers alone.

        Raises:
            ArtifactError: a file that is missing, or not ours.
            InputError: of another network.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            found = cls.from_dict(values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError("Sensitivity.load: not a file of ours.", at=path, expected=FORMAT, got=str(error)[:120]) from None
        return found if geta is None else found.of(geta.cost, geta.groups.table, where=path)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sensitivity:
        """Build one from :meth:`to_dict`; raises ``ValueError``, ``TypeError`` or ``KeyError`` where that is none."""
        if values["format"] != FORMAT:
            raise ValueError(str(values["format"])[:60])
        rises = {}
        for kind, name, at, mean, error in values["rises"]:
            if kind not in KINDS or not isinstance(name, str):
                raise ValueError(f"{kind} {name}"[:60])
            rises[Probe(kind, name, float(at))] = Rise(math.inf if mean is None else float(mean), None if error is None else float(error))
        correlation = values["rank_correlation"]
        return cls(
            loss=float(values["loss"]), rises=rises, order={str(k): tuple(map(int, v)) for k, v in values["order"].items()},
            batches=int(values["batches"]), estimate=str(values["estimate"]), identity=dict(values["identity"]),
            rank_correlation=None if correlation is None else float(correlation), checked=int(values["checked"]),
            link=tuple((float(total), float(real)) for total, real in values["link"]),
        )  # fmt: skip

    def of(self, cost: CostModel, table: GroupTable, *, where: object = None) -> Sensitivity:
        """Return these rises, bound to a network.

        Raises:
            InputError: another network.
        """
        own = sorted(group for groups in self.order.values() for group in groups)
        if list(self.order) != list(table.family_names) or own != list(range(table.n_groups)):
            expected, got = f"{table.n_groups} groups in {len(table.family_names)} families", f"{len(own)} in {len(self.order)}"
            raise InputError("Sensitivity: of another network.", at=where, expected=expected, got=got)
        return replace(self, network=Network(cost, table))
