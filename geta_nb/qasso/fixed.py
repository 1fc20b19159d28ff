"""Attributes that are set once: what an optimizer was made for. Another value comes too late, and would be ignored in silence."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from geta_nb.errors import RunStateError

T = TypeVar("T")


class Fixed(Generic[T]):
    """An attribute that keeps its first value.

    Raises:
        RunStateError: a second one; nothing was changed.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        try:
            value: T = vars(instance)[self._name]
        except (KeyError, TypeError):
            raise AttributeError(self._name) from None
        return value

    def __set__(self, instance: Any, value: T) -> None:
        if self._name in vars(instance):
            raise RunStateError(
                f"{type(instance).__name__}: its {self._name} is fixed, for groups, bounds and stages follow from it.",
                expected="a new optimizer", got=f"{self._name} = {value!r}", hint=f"optimizer = geta.qasso(..., {self._name}=...)",
            )  # fmt: skip
        vars(instance)[self._name] = value
