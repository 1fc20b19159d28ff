"""The house: declared dependencies, a quiet import, a wheel that is whole, no host to ask."""

from __future__ import annotations

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

from geta_nb.bench import peers

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "geta_nb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
DECLARED = [Requirement(line) for line in PROJECT["dependencies"]] + [r for name, lines in EXTRAS.items() if name != "all" for r in lines]


BESIDE = {"torchao"}  # make keeps it out of the environment: see pyproject.toml


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), "a pin is name==version and nothing else"
    return {canonicalize_name(name): Version(number) for name, number in (line.split("==") for line in lines)}


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
    if not all(_installed(requirement.name) for requirement in DECLARED if requirement.name not in BESIDE):
        pytest.skip("not every extra is installed here; `make test` installs them all")
    assert set(pins()) - {name for name, _ in needed} == set()


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def test_torch_is_pinned_to_the_release_that_everything_was_measured_with():
    assert str(pins()["torch"]) == "2.13.0"


def test_all_means_every_extra_but_dev_and_what_stands_beside_the_environment():
    assert set(EXTRAS) == {"notebook", "export", "bench", "torchao", "all", "dev"}
    assert EXTRAS["all"][0].extras == set(EXTRAS) - {"all", "dev", *BESIDE}


def test_conda_environment_and_makefile_install_the_same_extras_with_the_same_pins():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    outer = [line for line in conda["dependencies"] if isinstance(line, str)]
    inner = next(line["pip"] for line in conda["dependencies"] if isinstance(line, dict))
    assert conda["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in outer
    assert "graphviz" in outer
    assert inner == ["-c constraints.txt", "-e .[all,dev]"]
    assert "pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'" in (ROOT / "Makefile").read_text()


def test_make_puts_beside_the_environment_what_no_notebook_should_meet():
    rules = (ROOT / "Makefile").read_text()
    for name in BESIDE:
        assert f"-c constraints.txt --no-deps --upgrade --target $(VENV)/beside {name}\n" in rules
    assert peers.BESIDE.name == "beside" and peers.BESIDE.parent == Path(sys.prefix)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["from transformers import BertModel, LlamaModel", "import transformers, accelerate, lightning"])
def test_what_a_notebook_imports_says_nothing_of_torchao(wanted, tmp_path):
    """transformers imports a torchao that it finds, and that named in red what it could not load."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    ran = subprocess.run([sys.executable, "-c", wanted], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert "torchao" not in ran.stderr
    assert "KernelPreference" not in ran.stderr, "what torchao makes torch complain of"


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else():
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
    assert os.access(script, os.X_OK)
    assert "make test" in (ROOT / "README.md").read_text()
    assert "run: .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_the_version_is_said_once_in_the_project_and_once_in_the_changelog():
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


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


@pytest.mark.parametrize("folder", ["geta_nb", "notebooks", "tutorials", "widgets"])
def test_nothing_we_ship_names_a_host_that_pages_would_ask(folder):
    hosts = re.compile("unpkg|jsdelivr|cdnjs|googleapis|" + r"fonts\.g")
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".ipynb", ".js", ".css", ".html", ".svg"}]
    assert [str(p.relative_to(ROOT)) for p in files if hosts.search(p.read_text())] == []


@pytest.mark.slow
def test_the_wheel_carries_every_module_and_imports_from_an_empty_folder(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("geta_nb-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {f"geta_nb/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*.py")} <= names
    assert "geta_nb/py.typed" in names
    static = PACKAGE / "widgets" / "static"
    front_end = {path.relative_to(ROOT).as_posix() for path in static.rglob("*") if path.is_file()}
    assert {"geta_nb/widgets/static/explorer.js", "geta_nb/widgets/static/explorer.css"} <= front_end <= names
    carried = [path for folder in ("app", "panels/src", "page/src") for path in (ROOT / "widgets" / folder).rglob("*") if path.is_file()]
    shipped = [*(ROOT / "notebooks").glob("*.ipynb"), *carried]
    assert {f"geta_nb/{path.relative_to(ROOT).as_posix()}" for path in shipped if "checkpoints" not in str(path)} <= names
    assert not [name for name in names if "node_modules" in name or name.startswith("geta_nb/widgets/panels/tests")]
    assert not [name for name in names if name.startswith(("tests", "notebooks", "runs"))]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", "import geta_nb; print(geta_nb.__file__)"]
    where = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(tmp_path / "site"))
    script = "import geta_nb as gt; from geta_nb.widgets import live_view, panel_assets, studio; print(panel_assets.panel_folder()); "
    script += "print(all('export default' in panel.assets()[0] for panel in (gt.BudgetPanel, live_view.LiveView, studio.Studio)))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert loaded.splitlines() == [str(tmp_path / "site" / "geta_nb" / "widgets" / "panels" / "src"), "True"]
    command = [sys.executable, "-m", "geta_nb.pipelines.cli", "list"]
    listed = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    (entry,) = [archived for archived in names if archived.endswith("entry_points.txt")]
    assert "geta-nb = geta_nb.pipelines.cli:main" in (tmp_path / "site" / entry).read_text()
