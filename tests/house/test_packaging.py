"""The house: declared dependencies, import arrows, a quiet import, a wheel that is whole, no host to ask."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "geta_nb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
DECLARED = [Requirement(line) for line in PROJECT["dependencies"]] + [r for name, lines in EXTRAS.items() if name != "all" for r in lines]

# What may be imported from where: a module may import modules of its own or a lower layer, and of the same line.
# Anything of the package that is not named here is core.
OUTER = ("display", "widgets", "baselines", "bench", "pipelines")
MAY_IMPORT = {
    "core": set(),
    "display": {"display"},
    "widgets": {"display", "widgets"},
    "baselines": {"baselines"},
    "bench": {"bench", "baselines", "display", "widgets"},
    "pipelines": {"pipelines", "bench", "baselines", "display", "widgets"},
}
# Inside the core, stages do not reach, even through others, what comes after them. The last line of the pipeline is the façade.
LATER = {
    "errors": {"views", "config", "trace", "quantizers"},
    "views": {"errors", "config", "trace", "quantizers"},
    "config": {"trace", "quantizers", "budget", "cost"},
    "budget": {"trace", "quantizers", "cost", "groups"},
    "schedule": {"trace", "quantizers", "cost", "groups"},
    "quantizers": {"prepare", "trace", "groups", "optimizer"},
    "trace": {"operators", "labels", "groups", "qadg", "prepare", "subnet"},
    "labels": {"groups", "qadg", "cost", "subnet", "optimizer"},
    "operators": {"groups", "qadg", "cost", "subnet", "optimizer"},
    "groups": {"qadg", "subnet", "optimizer", "prepare"},
    "cost": {"report", "preview", "subnet", "optimizer"},
    "saliency": {"optimizer", "subnet"},
    "projection": {"optimizer", "subnet"},
    "optimizer": {"subnet", "report", "export"},
    "qadg": {"subnet", "optimizer", "export"},
    "export": {"geta"},
}


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), "a pin is name==version and nothing else"
    return {canonicalize_name(name): Version(number) for name, number in (line.split("==") for line in lines)}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name without the package's own."""
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imports(path: Path) -> set[str]:
    """Dotted names (without ``geta_nb.``) of this package that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            source = ".".join(part for part in (above, node.module) if part)
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return {name.removeprefix("geta_nb.") for name in names if name.startswith("geta_nb.")}


def layer(name: str) -> str:
    head = name.split(".")[0]
    return head if head in OUTER else "core"


def test_every_declared_dependency_is_pinned_to_a_version_it_allows():
    pinned = pins()
    for requirement in DECLARED:
        assert canonicalize_name(requirement.name) in pinned, f"{requirement.name} has no pin"
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_every_pin_is_declared_or_needed_by_something_declared():
    """Follow the requirements of what is installed from the declared names; a pin that is never met is left over."""
    needed, queue = set(), [(r.name, set(r.extras)) for r in DECLARED]
    while queue:
        name, extras = queue.pop()
        if (canonicalize_name(name), frozenset(extras)) in needed:
            continue
        needed.add((canonicalize_name(name), frozenset(extras)))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            environments = [{"extra": extra, "python_version": "3.11", "python_full_version": "3.11.9"} for extra in (extras or {""})]
            if requirement.marker is None or any(requirement.marker.evaluate(e) for e in environments):
                queue.append((requirement.name, set(requirement.extras)))
    if not all(_installed(requirement.name) for requirement in DECLARED):
        pytest.skip("not every extra is installed here; `make test` installs them all")
    assert set(pins()) - {name for name, _ in needed} == set()


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def test_torch_is_pinned_to_the_release_that_everything_was_measured_with():
    assert str(pins()["torch"]) == "2.13.0"


def test_all_means_every_extra_but_dev():
    assert set(EXTRAS) == {"notebook", "export", "bench", "all", "dev"}
    assert EXTRAS["all"][0].extras == set(EXTRAS) - {"all", "dev"}


def test_conda_environment_and_makefile_install_the_same_extras_with_the_same_pins():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    outer = [line for line in conda["dependencies"] if isinstance(line, str)]
    inner = next(line["pip"] for line in conda["dependencies"] if isinstance(line, dict))
    assert conda["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in outer
    assert "graphviz" in outer
    assert inner == ["-c constraints.txt", "-e .[all,dev]"]
    assert "pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'" in (ROOT / "Makefile").read_text()


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else():
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
    assert os.access(script, os.X_OK)
    assert "make test" in (ROOT / "README.md").read_text()
    assert "run: .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_the_version_is_said_once_in_the_project_and_once_in_the_changelog():
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_core_imports_neither_displays_nor_widgets_nor_benchmarks():
    """Core <- display <- widgets <- bench <- pipelines: the last two stand outside. The façade's registry hook is `geta_nb/__init__.py`."""
    wrong = [
        f"{name} imports {target}"
        for name, path in modules().items()
        if name != "__init__"
        for target in imports(path)
        if layer(target) != "core" and layer(target) not in MAY_IMPORT[layer(name)]
    ]
    assert wrong == []


def test_no_stage_of_the_pipeline_reaches_a_later_one():
    known = modules()
    graph = {name: _resolved(imports(path), known) for name, path in known.items() if name != "__init__"}
    for name, later in LATER.items():
        assert name in graph, f"there is no module {name}"
        assert later <= set(graph), f"no modules {sorted(later - set(graph))}"
        assert sorted(_reached(name, graph) & (later | {"geta"})) == [], f"{name} reaches a later stage"


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Every module that ``start`` imports, directly or through others, without itself."""
    found, queue = set(), [start]
    while queue:
        new = graph[queue.pop()] - found
        found |= new
        queue += new
    return found - {start}


def test_no_two_modules_import_each_other():
    """Import cycles between modules make the order of import matter; there is none."""
    known = modules()
    graph = {name: {t for t in _resolved(imports(path), known) if t != name} for name, path in known.items() if name != "__init__"}
    done: set[str] = set()
    while ready := {name for name, targets in graph.items() if name not in done and targets <= done}:
        done |= ready
    assert sorted(set(graph) - done) == []


def _resolved(names: set[str], known: dict[str, Path]) -> set[str]:
    """`module.name` is the module it comes from; what is no module of its own (a re-export of the package) is dropped."""
    return {name if name in known else name.rpartition(".")[0] for name in names} & set(known)


def test_importing_the_package_brings_no_plotting_and_writes_nothing(tmp_path):
    script = (
        "import sys, geta_nb; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'matplotlib', 'ipywidgets', 'anywidget', 'pyvis', 'IPython', 'sklearn'}))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["geta_nb", "notebooks", "tutorials", "widgets/src"])
def test_nothing_we_ship_names_a_host_that_pages_would_ask(folder):
    hosts = re.compile("unpkg|jsdelivr|cdnjs|googleapis|" + r"fonts\.g")
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".ipynb", ".js", ".css", ".html", ".svg"}]
    assert [str(p.relative_to(ROOT)) for p in files if hosts.search(p.read_text())] == []


def test_no_file_is_longer_than_the_wall():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


@pytest.mark.slow
def test_the_wheel_carries_every_module_and_imports_from_an_empty_folder(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("geta_nb-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {f"geta_nb/{path.relative_to(PACKAGE)}" for path in modules().values()} <= names
    assert "geta_nb/py.typed" in names
    static = PACKAGE / "widgets" / "static"
    front_end = {path.relative_to(ROOT).as_posix() for path in static.rglob("*") if path.is_file()}
    assert {"geta_nb/widgets/static/explorer.js", "geta_nb/widgets/static/explorer.css"} <= front_end <= names
    shipped = [*(ROOT / "notebooks").glob("*.ipynb"), *(path for path in (ROOT / "widgets" / "app").rglob("*") if path.is_file())]
    assert {f"geta_nb/{path.relative_to(ROOT).as_posix()}" for path in shipped if "checkpoints" not in str(path)} <= names
    assert not [name for name in names if "node_modules" in name]
    assert not [name for name in names if name.startswith(("tests", "notebooks", "runs"))]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", "import geta_nb; print(geta_nb.__file__)"]
    where = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(tmp_path / "site"))
    command = [sys.executable, "-m", "geta_nb.pipelines.cli", "list"]
    listed = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    (entry,) = [archived for archived in names if archived.endswith("entry_points.txt")]
    assert "geta-nb = geta_nb.pipelines.cli:main" in (tmp_path / "site" / entry).read_text()
