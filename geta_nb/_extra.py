"""Optional parts are imported when they are used; what is missing is named with the extra that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from geta_nb.errors import MissingExtraError


def load(module: str, extra: str) -> ModuleType:
    """Return a module.

    Raises:
        MissingExtraError: a package it needs is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("geta_nb"):
            raise
        raise MissingExtraError(
            f"{module}: an optional package is missing.", at=error.name, expected=f"the extra {extra!r}",
            hint=f"pip install 'geta-nb[{extra}]'",
        ) from error
