"""Optional parts are imported when they are used, and folders that the package carries are found; what is missing is named with its remedy.

In: a module and its extra, or a folder of the checkout. Out: the module, or where the folder is. Shared by all rooms.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from geta_nb.errors import InputError, MissingExtraError

PACKAGE = Path(__file__).resolve().parent


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


def carried(folder: str) -> Path:
    """Return a folder that lies beside the package in a checkout, and inside it when it was installed from a wheel.

    Args:
        folder: from the top of the checkout, such as ``"notebooks"``.

    Raises:
        InputError: it is in neither place.
    """
    checkout = PACKAGE.parent
    places = [checkout / folder] if (checkout / "pyproject.toml").exists() else []
    for place in (*places, PACKAGE / folder):
        if place.is_dir():
            return place
    raise InputError(f"geta-nb: its folder {folder} is missing.", at=PACKAGE / folder, hint="pip install --force-reinstall geta-nb")
