"""The plan of a run with a cost target as data: what each layer and family comes to, what it costs in loss, and why.

In: what the optimizer decided. Out: an :class:`Allocation`, which shows itself, and texts. Views, reports and checkpoints hold the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from geta_nb.errors import CheckpointError
from geta_nb.qasso.descent import FAMILY, INPUT, WEIGHT
from geta_nb.views import Shown


@dataclass(frozen=True)
class Move:
    """A step down, taken or still open.

    Attributes:
        before, after: bits, or groups that live.
        rise: of the loss.
        saved: share of what the whole plan costs.
    """

    before: int
    after: int
    rise: float
    saved: float


@dataclass(frozen=True)
class AllocationRow:
    """What one layer's weights, its inputs, or one family of groups comes to.

    Attributes:
        kind: ``"weight"``, ``"input"`` or ``"family"``.
        name: layer or family.
        size: bits, or groups that live.
        whole: bits at the top of the range, or groups in all.
        rise: of the loss in all, before training repairs it.
        last: the step that led here; None: none was taken.
        next: the one that would come next; None: there is none left.
    """

    kind: str
    name: str
    size: int
    whole: int
    rise: float
    last: Move | None
    next: Move | None

    @property
    def unit(self) -> str:
        """What ``size`` counts."""
        return "groups" if self.kind == FAMILY else "bits"

    @property
    def why(self) -> str:
        """Why it stands where it stands, in words."""
        if self.last is None:
            stay = f"{self.size} {self.unit}: nothing was taken"
        else:
            stay = f"{self.size} {self.unit}: {self.last.before} to {self.last.after} cost {_loss(self.last)} for {_share(self.last)}"
        if self.next is None:
            return stay + ("; the low end" if self.last is not None else ", for there is nothing to take")
        return f"{stay}; {self.next.after} would cost {_loss(self.next)} for {_share(self.next)}"


def _loss(move: Move) -> str:
    return f"{move.rise:.2g} of the loss"


def _share(move: Move) -> str:
    return f"{100 * move.saved:.2g} % of the cost"


@dataclass(frozen=True, repr=False)
class Allocation(Shown):
    """How a cost target is split between bits and groups, as planned at a step.

    Attributes:
        step: steps done when it was made.
        measure: what the cost counts: ``"relative_bops"`` or ``"size_bytes"``.
        target: the most that it may be.
        cost: of the plan.
        samples: of a step's batch, by which rises come in units of a mean loss; None: not known, and rises are those of one sample's share.
        rows: weights, inputs, families.
    """

    step: int
    measure: str
    target: float
    cost: float
    samples: int | None
    rows: tuple[AllocationRow, ...]

    @property
    def rise(self) -> float:
        """Predicted rise of the loss: of rounding and of all groups that go, before training repairs it."""
        return math.fsum(row.rise for row in self.rows)

    def bits(self, kind: str = WEIGHT) -> dict[str, int]:
        """Return layer -> planned bits of weights, or of inputs with ``kind="input"``."""
        return {row.name: row.size for row in self.rows if row.kind == kind}

    def by_layer(self) -> dict[str, dict[str, Any]]:
        """Return layer -> ``bits`` and ``why``, and ``input_bits`` and ``input_why`` where inputs are quantized."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            if row.kind != FAMILY:
                key = "input_" if row.kind == INPUT else ""
                found.setdefault(row.name, {}).update({f"{key}bits": row.size, f"{key}why": row.why})
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values; :meth:`from_dict` is the inverse."""
        return asdict(self) | {"rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Allocation:
        """Build a plan from :meth:`to_dict`.

        Raises:
            CheckpointError: not a plan.
        """
        try:
            return cls(**{**values, "rows": tuple(_rows(values["rows"]))})
        except (AttributeError, KeyError, TypeError) as error:
            raise CheckpointError("Allocation: a damaged plan.", expected="what to_dict() returned", got=repr(error)[:80]) from None


def _rows(found: Iterable[Mapping[str, Any]]) -> Iterable[AllocationRow]:
    for row in found:
        moves = {key: None if row[key] is None else Move(**row[key]) for key in ("last", "next")}
        yield AllocationRow(**{**row, **moves})
