"""Which pipelines there are, where their notebooks lie, and what each can be told.

In: a name or the beginning of one. Out: a notebook's path and its parameters. A checkout has them in ``notebooks/``, an installed package
carries them along.
"""

from __future__ import annotations

import ast
import io
import json
import os
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from geta_nb._extra import carried
from geta_nb.errors import ConfigError

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: its name, its default, and the remark behind it."""

    name: str
    default: Scalar
    remark: str

    def parse(self, text: str) -> Scalar:
        """Return ``text`` as a value of the default's type.

        Raises:
            ConfigError: it is none.
        """
        switches = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        try:
            if isinstance(self.default, bool):
                return switches[text.lower()]
            return type(self.default)(text)
        except (ValueError, KeyError):
            kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(self.default)]
            raise ConfigError(f"parameter {self.name}: not a value of its kind.", expected=kind, got=repr(text)) from None


@dataclass(frozen=True)
class Pipeline:
    """A notebook of the package.

    Attributes:
        path: of the notebook.
        title: its first heading.
        parameters: of its parameters cell, in order.
    """

    path: Path
    title: str
    parameters: tuple[Parameter, ...]

    @property
    def name(self) -> str:
        """File name without its end, such as ``"02_resnet20_cifar10"``."""
        return self.path.stem

    def values(self, given: Iterable[Sequence[str]], *, smoke: bool = False) -> dict[str, Scalar]:
        """Return parameters as the notebook wants them.

        Args:
            given: pairs of name and text. Where a name ends in ``_dir`` or ``_checkout``, the text is a path from the caller's folder,
                and the value the same place from the notebook's.
            smoke: a run of seconds.

        Raises:
            ConfigError: a name that the notebook does not have, or a text that is no value of its kind.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        values: dict[str, Scalar] = {"smoke": True} if smoke else {}
        for name, text in given:
            if name not in known or name == "output_dir":
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = "-o DIR" if name == "output_dir" else f"did you mean {near[0]}?" if near else f"geta-nb list {self.name}"
                raise ConfigError(f"{self.name}: no such parameter to give.", expected=", ".join(known), got=name, hint=hint)
            value = known[name].parse(text)
            is_path = name.endswith(("_dir", "_checkout")) and bool(value)
            values[name] = os.path.relpath(Path(str(value)).resolve(), self.path.resolve().parent) if is_path else value
        return values


def notebook_folder() -> Path:
    """Return where the notebooks are: beside the package in a checkout, else inside it.

    Raises:
        InputError: they are in neither place.
    """
    return carried("notebooks")


def read_pipeline(path: Path) -> Pipeline:
    """Return what a notebook is called and what it can be told."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell) for cell in cells]
    headings = [text.splitlines()[0] for text, cell in texts if cell["cell_type"] == "markdown" and text.startswith("# ")]
    source = next((text for text, cell in texts if "parameters" in cell["metadata"].get("tags", ())), "")
    remarks = _remarks(source)
    parameters = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            parameters.append(Parameter(node.targets[0].id, ast.literal_eval(node.value), remarks.get(node.lineno, "")))
    return Pipeline(path, headings[0].lstrip("# ") if headings else "", tuple(parameters))


def _remarks(source: str) -> dict[int, str]:
    tokens: Any = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def all_pipelines() -> tuple[Pipeline, ...]:
    """Return every pipeline in the order of their numbers."""
    return tuple(read_pipeline(path) for path in sorted(notebook_folder().glob("[0-9]*.ipynb")))


def find_pipeline(name: str) -> Pipeline:
    """Return a pipeline by its name, its number, or any part of its name that no other one has.

    Raises:
        ConfigError: none, or several, are meant by it.
    """
    known = {pipeline.name: pipeline for pipeline in all_pipelines()}
    wanted = name.removesuffix(".ipynb")
    if wanted in known:
        return known[wanted]
    number = wanted.zfill(2) if wanted.isdigit() else None
    found = [key for key in known if (key.startswith(f"{number}_") if number else wanted.lower() in key)]
    if len(found) == 1:
        return known[found[0]]
    near = found or get_close_matches(wanted, known, n=3, cutoff=0.4)
    what = "several pipelines are meant" if found else "no such pipeline"
    hint = f"did you mean {' or '.join(near)}?" if near else "geta-nb list"
    raise ConfigError(f"pipeline: {what}.", expected=", ".join(known), got=repr(name), hint=hint)
