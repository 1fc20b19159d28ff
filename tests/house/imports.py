"""Reads who imports what in the package, from its source. The laws of the house and its picture stand on this."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "geta_nb"

# From the ground up: a module imports what stands in its own place or below. `geta_nb` is the package's front, `geta_nb/__init__.py`.
GROUND = ("errors", "views", "_extra", "config", "budget", "sharding")
CORE = ("graph", "groups", "quantizers", "centering", "cost", "qadg", "subnet", "files", "qasso", "sensitivity", "onnx", "latency")
FACADE = ("checks", "adapting", "resuming", "geta")
SHOWN = ("display", "widgets")
FRONT = "geta_nb"
OUTSIDE = ("baselines", "bench", "pipelines")
ORDER = (*GROUND, *CORE, *FACADE, *SHOWN, FRONT, *OUTSIDE)
ROOMS = (*CORE, *SHOWN, *OUTSIDE)


@dataclass(frozen=True)
class Import:
    """One name that a file takes from the package, ``from module import name`` or ``import module``.

    Attributes:
        importer: dotted name of the importing module, or the path of a page or notebook.
        line: in its file.
        module: dotted name behind ``from``.
        name: what is taken from it; None for ``import module``.
        statement: False for a module named in a string, to be loaded when it is asked for.
    """

    importer: str
    line: int
    module: str
    name: str | None = None
    statement: bool = True

    @property
    def target(self) -> str:
        """The module that is loaded: a submodule's own name, or the one that the name is taken from."""
        inner = f"{self.module}.{self.name}"
        return inner if inner in modules() else self.module

    def __str__(self) -> str:
        taken = self.module if self.name is None else f"{self.name} from {self.module}"
        return f"{self.importer}:{self.line} imports {taken}"


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    return dotted_modules(PACKAGE)


def dotted_modules(package: Path) -> dict[str, Path]:
    """Return every module below a package's folder by its dotted name."""
    paths = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in sorted(package.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def place(module: str) -> str:
    """Return the room of a module, its own name where it stands at the top, or ``geta_nb`` for the front."""
    return module.split(".")[1] if "." in module else FRONT


def stage(room: str) -> int:
    """Return a room's number in the pipeline. The façade is one stage, the front none."""
    stages = [name for name in ORDER if name not in {*GROUND, FRONT, *FACADE[:-1]}]
    return stages.index(room) + 1


def imports_in(source: str, importer: str) -> Iterator[Import]:
    """Yield what a source takes from this package, anywhere in it, also by a string that is a module's name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(importer, node.lineno, a.name) for a in node.names if a.name.split(".")[0] == "geta_nb")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from (Import(importer, node.lineno, f"{'.' * node.level}{node.module or ''}", a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "geta_nb":
            yield from (Import(importer, node.lineno, str(node.module), a.name) for a in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"geta_nb(\.\w+)+", node.value):
            yield Import(importer, node.lineno, node.value, statement=False)
        elif isinstance(node, ast.Attribute) and node.attr in ROOMS and ast.unparse(node.value) in ("gt", "geta_nb"):
            yield Import(importer, node.lineno, f"geta_nb.{node.attr}")  # a room reached through the front


@cache
def all_imports() -> tuple[Import, ...]:
    """Return every import of the package by the package."""
    return tuple(found for name, path in modules().items() for found in imports_in(path.read_text(), name))


def exports(room: str) -> list[str]:
    """Return what stands in the ``__all__`` of a room's door."""
    for node in ast.parse((PACKAGE / room / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


@cache
def taken_through_doors() -> dict[tuple[str, str], str]:
    """Return, for each (door, name) that a door imports, the module that the name comes from."""
    doors = {FRONT, *(f"geta_nb.{room}" for room in ROOMS), "geta_nb.groups.operators"}
    return {(found.importer, str(found.name)): found.target for found in all_imports() if found.importer in doors}


def origin(found: Import) -> str:
    """Return the module that an imported name is written in: doors are looked through."""
    module = found.target
    while (module, str(found.name)) in taken_through_doors() and module != found.importer:
        module = taken_through_doors()[module, str(found.name)]
    return module


@cache
def shown_imports() -> tuple[Import, ...]:
    """Return what the Python in pages, notebooks and tutorials imports."""
    found: list[Import] = []
    for path in _shown():
        for source in _python_of(path):
            try:
                found += imports_in(source, path.relative_to(ROOT).as_posix())
            except SyntaxError:
                continue  # a cell of the shell, or a fragment
    return tuple(found)


def shown_text() -> str:
    """Return all text in which a name may be mentioned by its dotted path: pages, notebooks, the Makefile, the project's file."""
    return "\n".join(path.read_text() for path in (*_shown(), ROOT / "Makefile", ROOT / "pyproject.toml"))


def _shown() -> list[Path]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "widgets").glob("*.md"))]
    folders = (ROOT / "notebooks", ROOT / "tutorials", ROOT / "widgets" / "app")
    return pages + [path for folder in folders for path in sorted(folder.glob("*.ipynb"))]


def _python_of(path: Path) -> list[str]:
    text = path.read_text()
    if path.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
