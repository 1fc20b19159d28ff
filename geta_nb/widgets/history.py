"""What a run has been so far, in bounded memory: one record at a time, the same whether anybody watches or not.

Comes in: ``optimizer.progress()`` snapshots with a loss and metrics. Goes out: records as dictionaries, or columns over steps.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LIMIT = 1000
"""Most records that are kept."""

TABLES = ("bits", "activation_bits", "kept")
_SCALARS = ("bit_bound", "zero_groups", "fading_groups", "n_groups")


class _Record(NamedTuple):
    step: int
    stage: str
    loss: float | None
    metrics: dict[str, float]
    scalars: tuple[Any, ...]
    tables: tuple[array[float], ...]


class History(Sequence[dict[str, Any]]):
    """Records in order of their steps. ``history[-1]`` is the last one as a dictionary; the properties are columns of equal length.

    Beyond ``limit`` records every other one is dropped, those without metrics first; the first and the last always stay.

    Args:
        limit: most records kept, >= 4.

    >>> history = History()
    >>> history.append({"step": 1, "stage": "joint", "bits": {"fc": 8.0}}, loss=0.5, metrics={})
    >>> history.steps, history.loss, history.bits
    ([1], [0.5], {'fc': [8.0]})
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = max(4, limit)
        self.names: tuple[tuple[str, ...], ...] = ((),) * len(TABLES)
        self._records: list[_Record] = []

    def append(self, snapshot: Mapping[str, Any], *, loss: float | None, metrics: Mapping[str, float]) -> None:
        """Add what ``optimizer.progress()`` said, with the mean loss since the record before and this step's metrics."""
        tables = [snapshot.get(key) or {} for key in TABLES]
        if not self._records:
            self.names = tuple(tuple(table) for table in tables)
        columns = tuple(
            array("d", (float(table.get(name, "nan")) for name in names)) for names, table in zip(self.names, tables, strict=True)
        )
        scalars = tuple(snapshot.get(key) for key in _SCALARS)
        record = _Record(int(snapshot["step"]), str(snapshot["stage"]), loss, dict(metrics), scalars, columns)
        # a new list, never a changed one: other threads read it meanwhile
        records = [*self._records, record] if len(self._records) < self.limit else [*_thinned(self._records), record]
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._dictionary(record) for record in self._records[index]]
        return self._dictionary(self._records[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.names == other.names and self._records == other._records

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        last = f", last at step {self._records[-1].step}" if self._records else ""
        return f"History({len(self)} records{last})"

    def _dictionary(self, record: _Record) -> dict[str, Any]:
        tables = {
            key: dict(zip(names, values.tolist(), strict=True))
            for key, names, values in zip(TABLES, self.names, record.tables, strict=True)
        }
        scalars = dict(zip(_SCALARS, record.scalars, strict=True))
        return {"step": record.step, "stage": record.stage, "loss": record.loss, "metrics": dict(record.metrics), **scalars, **tables}

    @property
    def steps(self) -> list[int]:
        """Steps done at each record."""
        return [record.step for record in self._records]

    @property
    def loss(self) -> list[float | None]:
        """Mean loss of the steps since the record before; None where the step function gave none."""
        return [record.loss for record in self._records]

    @property
    def stage(self) -> list[str]:
        """Stage of the next step at each record."""
        return [record.stage for record in self._records]

    @property
    def metrics(self) -> dict[str, list[float | None]]:
        """Metric -> its values; None where it was not measured."""
        records = self._records
        names = dict.fromkeys(name for record in records for name in record.metrics)
        return {name: [record.metrics.get(name) for record in records] for name in names}

    @property
    def bits(self) -> dict[str, list[float]]:
        """Layer -> bits of its weights at each record."""
        return self._table(0)

    @property
    def activation_bits(self) -> dict[str, list[float]]:
        """Layer -> bits of its quantized input at each record."""
        return self._table(1)

    @property
    def kept(self) -> dict[str, list[float]]:
        """Family -> share of its groups that live at each record."""
        return self._table(2)

    def _table(self, index: int) -> dict[str, list[float]]:
        records = self._records
        return {name: [record.tables[index][i] for record in records] for i, name in enumerate(self.names[index])}


def _thinned(records: list[_Record]) -> list[_Record]:
    """Return the records without every other one of those that carry no metrics, or of all when few of these are left."""
    inner = range(1, len(records) - 1)
    plain = [i for i in inner if not records[i].metrics]
    drop = set((plain if 8 * len(plain) >= len(records) else [*inner])[::2])
    return [record for i, record in enumerate(records) if i not in drop]
