"""Which code made a number: a fingerprint of the sources that one method depends on, and of what the network's analysis says.

In: modules of the package. Out: sixteen hexadecimal digits. Imports are followed from file to file, except into rooms that cannot change
a number and into the analysis (graph, groups, cost, subnet): what those say about the network is hashed as a value, so a new operator's
rule makes no run stale, and a changed group or price makes all of them stale. Comments, docstrings and empty lines do not count.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from geta_nb.baselines.space import Space

PACKAGE = Path(__file__).resolve().parents[1]
SILENT = ("errors", "views", "_extra", "checks", "files", "onnx", "latency", "sensitivity", "display", "widgets")
"""What changes no number: words, files, views."""
BY_VALUE = ("graph", "groups", "cost", "qadg", "subnet")
"""The analysis, and the cut that it prescribes."""
ANALYSIS_ALONE = "geta_nb.baselines.space"
"""This module uses the façade for the analysis alone, so its imports outside its room are not followed."""


def code_fingerprint(modules: Iterable[str]) -> str:
    """Return the fingerprint of the code that these modules run."""
    digest = hashlib.sha256()
    for name in sorted(closure(modules)):
        digest.update(f"{name}\n{bare(_file(name).read_text())}\n".encode())
    return digest.hexdigest()[:16]


def closure(modules: Iterable[str]) -> set[str]:
    """Return these modules and all that they import, directly or through others, as far as imports are followed."""
    found: set[str] = set()
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += [target for target in _imports(name) if followed(name, target)]
    return found


def followed(importer: str, target: str) -> bool:
    """Whether what ``importer`` takes from ``target`` can change a number."""
    place = target.split(".")[1] if "." in target else ""
    if not place or place in SILENT or place in BY_VALUE:
        return False
    return importer != ANALYSIS_ALONE or place == "baselines"


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports(module: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_targets(_file(module).read_text())))


def _targets(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _file(inner).exists() else str(node.module)


def bare(source: str) -> str:
    """Return a source without comments, docstrings and empty lines.

    >>> bare("x = 1  # why")
    'x = 1'
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, start = token.start
            lines[row - 1] = lines[row - 1][:start]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * (1 + (text.end_lineno or text.lineno) - text.lineno)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def analysis_fingerprint(space: Space) -> str:
    """Return the fingerprint of a network's groups and prices, as the package finds them, and of how it counts some choices of both."""
    maps = sorted((m.parameter, m.axis, m.producing, np.asarray(m.group_of_index).tolist()) for m in space.table.axis_maps)
    families = np.asarray(space.table.family_of).tolist()
    prices = [
        (op.layer, op.weight, op.activation, op.attention, op.macs.const, [np.asarray(array).tolist() for array in op.macs.arrays])
        for op in space.cost.operators
    ]
    facts = json.dumps([maps, families, prices, _costs(space)], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _costs(space: Space) -> list[dict[str, str]]:
    """Return what the cost model says of the whole network, and of every third group at mixed bits; nine digits."""
    third = space.everyone
    third[::3] = False
    choices = ((space.everyone, space.bits(4, 8)), (third, space.bits(3, 32)), (third, ({space.layers[0]: 2.0}, {space.layers[-1]: 6.0})))
    return [{name: f"{value:.9g}" for name, value in space.cost.evaluate(alive, *bits).figures().items()} for alive, bits in choices]
