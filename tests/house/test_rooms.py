"""The law of the house: rooms in order, arrows that only go down, doors that say what passes, and sizes one can live with."""

from __future__ import annotations

import ast
import importlib
import re
import statistics

import pytest

from tests.house import imports as house
from tests.house.imports import Import, place

FROM_ELSEWHERE = [found for found in house.all_imports() if place(found.importer) != place(found.target)]
OUTSIDE_CORE = {*house.SHOWN, house.FRONT, *house.OUTSIDE}

# Stricter than the order of the rooms: what these do not reach, not even through others. A door is looked through to a name's own module.
REACHES_NOT = {
    "geta_nb.groups.labels": {"budget", "quantizers", "groups.operators", "groups.propagation", "groups.table", "groups.find"},
    "geta_nb.groups.operators": {"budget", "quantizers", "groups.propagation", "groups.table", "groups.find"},
    "geta_nb.groups.propagation": {"budget", "quantizers", "groups.table", "groups.find"},
    "geta_nb.quantizers.fake_quant": {"graph", "groups", "quantizers.modules", "quantizers.prepare"},
    "geta_nb.quantizers.modules": {"graph", "groups", "quantizers.prepare"},
    "geta_nb.cost.totals": {"cost.model", "cost.report", "cost.preview"},
    "geta_nb.cost.model": {"cost.report", "cost.preview"},
    "geta_nb.qasso.schedule": {"graph", "groups", "quantizers", "cost"},
    "geta_nb.qasso.saliency": {"qasso.optimizer", "subnet"},
    "geta_nb.qasso.projection": {"qasso.optimizer", "subnet"},
    "geta_nb.qasso.forgetting": {"qasso.optimizer", "subnet"},
    "geta_nb.qasso": {"subnet", "cost.report", "files.save_load", "onnx", "latency"},
    "geta_nb.latency.table": {"onnx", "files", "quantizers"},
}
NOTHING_BELOW = ("errors", "views")  # these two import nothing of the package


def inside(module: str, start: str) -> bool:
    return module == start or module.startswith(f"{start}.")


def may_import(importer: str, target: str) -> bool:
    """An arrow goes down, or stays in its room."""
    return house.ORDER.index(place(target)) < house.ORDER.index(place(importer)) or place(target) == place(importer)


def goes_through_the_door(found: Import) -> bool:
    """What is taken stands in the door's list: the name itself, or the module that it is taken from. The front may load a door whole."""
    room = place(found.target)
    if room not in house.ROOMS:
        return True
    door, allowed = f"geta_nb.{room}", house.exports(room)
    if found.target == door and found.name in (None, room):
        return found.importer == house.FRONT
    if found.module == door:
        return found.name in allowed
    return found.module.removeprefix(f"{door}.") in allowed


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return what is left when everything whose targets are done is taken away: empty where there is no circle."""
    done: set[str] = set()
    while ready := {name for name, targets in arrows.items() if name not in done and targets - {name} <= done}:
        done |= ready
    return sorted(set(arrows) - done)


def reached(start: str) -> set[str]:
    """Return every module that those at or below ``start`` import, directly or through others."""
    arrows: dict[str, set[str]] = {name: set() for name in house.modules()}
    for found in house.all_imports():
        arrows[found.importer].add(house.origin(found))
    doors = {f"geta_nb.{room}" for room in house.ROOMS} | {house.FRONT}
    seen = {name for name in arrows if inside(name, start) and name not in doors}
    assert seen, f"there is no module {start}"
    queue, found_modules = list(seen), set[str]()
    while queue:
        new = arrows.get(queue.pop(), set()) - found_modules
        found_modules |= new
        queue += new
    return found_modules


def test_the_top_of_the_package_holds_the_shared_modules_the_facade_and_the_rooms_alone():
    at_the_top = {path.stem for path in house.PACKAGE.glob("*.py")}
    assert at_the_top == {"__init__", *house.GROUND, *house.FACADE}
    assert {path.parent.name for path in house.PACKAGE.glob("*/__init__.py")} == set(house.ROOMS)
    assert {place(name) for name in house.modules()} == set(house.ORDER)


def test_no_module_imports_from_above_its_own_room():
    assert [str(found) for found in house.all_imports() if not may_import(found.importer, found.target)] == []


def test_errors_and_views_import_nothing_of_the_package():
    assert [str(found) for found in house.all_imports() if place(found.importer) in NOTHING_BELOW] == []


def test_the_core_knows_neither_displays_nor_widgets_nor_what_stands_outside():
    core = {*house.GROUND, *house.CORE, *house.FACADE}
    assert [str(f) for f in house.all_imports() if place(f.importer) in core and place(f.target) in OUTSIDE_CORE] == []
    for room in core:
        known = {place(target) for target in reached(f"geta_nb.{room}")}
        assert sorted(known & OUTSIDE_CORE) == [], f"{room} reaches them through others"


def test_a_room_is_entered_by_its_door():
    assert [str(found) for found in FROM_ELSEWHERE if not goes_through_the_door(found)] == []


def test_pages_notebooks_and_tutorials_enter_by_the_doors_too():
    assert [str(found) for found in house.shown_imports() if not goes_through_the_door(found)] == []


def test_no_room_uses_its_own_door_to_come_in():
    """A module takes from its siblings directly; a name taken from the own door would be a circle."""
    own = [f for f in house.all_imports() if place(f.importer) == place(f.target) and f.target == f"geta_nb.{place(f.importer)}" and f.name]
    assert [str(found) for found in own] == []


def test_no_module_takes_a_private_name_of_another():
    private = [found for found in house.all_imports() if found.name and found.name.startswith("_") and found.module != house.FRONT]
    assert [str(found) for found in private] == []


def test_imports_are_absolute():
    assert [str(found) for found in house.all_imports() if found.module.startswith(".")] == []


def test_no_modules_import_each_other_in_a_circle():
    arrows: dict[str, set[str]] = {name: set() for name in house.modules()}
    for found in house.all_imports():
        if found.statement:
            arrows[found.importer].add(found.target)
    assert circle(arrows) == []


def test_no_rooms_import_each_other_in_a_circle():
    arrows: dict[str, set[str]] = {name: set() for name in house.ORDER}
    for found in house.all_imports():
        arrows[place(found.importer)].add(place(found.target))
    assert circle(arrows) == []


@pytest.mark.parametrize("start", REACHES_NOT)
def test_no_part_reaches_what_comes_after_it(start):
    later = {f"geta_nb.{name}" for name in REACHES_NOT[start]}
    assert all(any(inside(module, name) for module in house.modules()) for name in later), "a law names a module that is gone"
    assert sorted(m for m in reached(start) if any(inside(m, name) for name in later) and not inside(m, start)) == []


@pytest.mark.parametrize("room", house.ROOMS)
def test_every_name_of_a_door_exists(room):
    door = importlib.import_module(f"geta_nb.{room}")
    names = house.exports(room)
    assert names == door.__all__ and names, "a door has a plain list"
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(door, name) and f"geta_nb.{room}.{name}" not in house.modules()]
    assert missing == []


@pytest.mark.parametrize("room", house.ROOMS)
def test_every_name_of_a_door_is_used_outside_its_room(room):
    """By another room, the façade, the front, a page, a notebook, a command. Tests do not count."""
    used = [*FROM_ELSEWHERE, *house.shown_imports()]
    taken = {str(found.name) for found in used if found.module == f"geta_nb.{room}"}
    modules = {found.module for found in used} | {found.target for found in used}
    written = set(re.findall(rf"\bgeta_nb\.{room}\.(\w+)", house.shown_text()))
    dead = [name for name in house.exports(room) if name not in taken | written and f"geta_nb.{room}.{name}" not in modules]
    assert dead == [], "dead exports"


@pytest.mark.parametrize("room", house.ROOMS)
def test_a_door_says_what_comes_in_what_goes_out_and_which_stage_it_is(room):
    text = ast.get_docstring(ast.parse((house.PACKAGE / room / "__init__.py").read_text())) or ""
    assert len(text.splitlines()) >= 3
    assert re.search(r"\bIn: \S", text) and re.search(r"\bOut: \S", text)
    assert text.startswith(f"Stage {house.stage(room)}: "), "stages are numbered as rooms are ordered"


def test_no_module_repeats_its_rooms_name():
    inner = [name.split(".")[1:] for name in house.modules() if name.count(".") >= 2]
    assert [".".join(parts) for parts in inner if {parts[0], parts[0].removesuffix("s")} & set(parts[-1].split("_"))] == []


@pytest.mark.parametrize("folder", ["geta_nb", "tests"])
def test_no_file_is_longer_than_the_wall(folder):
    lengths = {str(path.relative_to(house.ROOT)): len(path.read_text().splitlines()) for path in (house.ROOT / folder).rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_half_of_the_modules_fit_on_three_screens():
    assert statistics.median(len(path.read_text().splitlines()) for path in house.modules().values()) <= 160


def test_every_module_says_what_it_is():
    assert [name for name, path in house.modules().items() if not ast.get_docstring(ast.parse(path.read_text()))] == []
