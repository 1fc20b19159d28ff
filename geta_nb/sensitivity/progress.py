"""One progress bar for all that a sensitivity does. Comes in: an iterable. Goes out: the same, shown by the rank that speaks for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

from geta_nb.qasso import ranks

T = TypeVar("T")


def progress(things: Iterable[T], what: str, unit: str) -> Iterator[T]:
    """Yield ``things``, one after another, under a bar named ``what`` that counts ``unit``; on ranks but the first without a bar."""
    yield from tqdm(things, desc=what, unit=unit, leave=False, disable=not ranks.is_first())
