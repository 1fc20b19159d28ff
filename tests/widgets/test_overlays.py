"""Overlays and selection from Python: values by path, ready-made ones, what is refused and what is said."""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ConfigError, RunStateError
from geta_nb.latency import LatencyTable
from geta_nb.widgets.overlay_colours import ODD, paint, scale_of, word
from tests.small_nets import IMAGES, ROWS, Residual, cnn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries, when they are first imported
    pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
    Explorer = gt.Explorer

NORM = "_native_batch_norm_legit_no_training_default"  # of module "1"; with "_1" of module "4"


@pytest.fixture
def geta() -> gt.GETA:
    torch.manual_seed(0)
    return gt.GETA(cnn(), IMAGES)


@pytest.fixture
def explorer(geta: gt.GETA) -> Any:
    return Explorer(geta)


def shown(explorer: Any, name: str) -> dict[str, Any]:
    """Vertex name -> value of an overlay."""
    overlay = next(one for one in explorer.overlays if one["name"] == name)
    names = explorer._data["nodes"]["name"]
    rows = enumerate(zip(overlay["nodes"], overlay["values"], strict=True))
    return {names[node]: overlay["odd"].get(str(i), value) for i, (node, value) in rows}


def test_values_stand_at_their_vertices_and_the_nearest_name_wins(explorer: Any) -> None:
    explorer.overlay({"": 0, "0": 1, "1.weight": 2, "relu_1": 3.5}, name="mine")
    assert explorer.colour == "mine"
    found = shown(explorer, "mine")
    assert (found["conv2d"], found[NORM], found["relu_1"], found["linear"]) == (1.0, 2.0, 3.5, 0.0)
    assert set(found) == {explorer._data["nodes"]["name"][i] for i in explorer._data["layers"]["QADG"]["nodes"]}


def test_names_as_torch_lists_them_are_understood_and_what_runs_nothing_is_said(geta: gt.GETA, explorer: Any) -> None:
    explorer.overlay({name: float(p.numel()) for name, p in geta.model.named_parameters()}, name="sizes")
    assert shown(explorer, "sizes")["conv2d"] in {216.0, 8.0} and shown(explorer, "sizes")["linear"] in {24.0, 3.0}
    assert re.search(r"sizes: \d+ of the paths run nothing in this graph", explorer.message)
    explorer.overlay({name: type(module).__name__ for name, module in geta.model.named_modules() if "." not in name}, name="classes")
    assert "Conv2d" in shown(explorer, "classes")["conv2d"]


def test_texts_are_categories_and_numbers_may_be_tensors_or_arrays(explorer: Any) -> None:
    explorer.overlay({"0": "early", "3": "late"})
    assert explorer.overlays[0]["kind"] == "texts" and explorer.colour == "overlay"
    explorer.overlay({"0": torch.tensor(0.5), "3": np.float32(1.5), "8": np.array([2.0])}, name="numbers")
    assert shown(explorer, "numbers") == {"conv2d": 0.5, "conv2d_1": 1.5, "linear": 2.0}
    json.dumps(explorer.overlays, allow_nan=False)


def test_what_is_not_finite_is_kept_apart_and_said(explorer: Any) -> None:
    explorer.overlay({"0": math.nan, "3": math.inf, "8": -1.0, "1": -math.inf}, name="odd")
    assert shown(explorer, "odd") == {"conv2d": "NaN", NORM: "-inf", "conv2d_1": "inf", "linear": -1.0}
    assert "3 of 4 vertices are NaN or infinite" in explorer.message
    json.dumps(explorer.page_data(), allow_nan=False)


@pytest.mark.parametrize(("values", "match"), [
    ({"9.weigh": 1.0}, r"no such module, vertex or parameter(.|\n)*at: +'9\.weigh'(.|\n)*did you mean '(0|1|3|4|8)\.weight'"),
    ({"conv2x": 1.0, "0": 2.0}, r"1 of 2 unknown(.|\n)*did you mean 'conv2d'"),
    ({"0": 1.0, "3": "x"}, "numbers and texts in one overlay"),
    ({"0": [1, 2]}, "neither a number nor a text"),
    ({3: 1.0}, "not a path"),
    ({}, "there are no values"),
    ([1, 2], "not values by path"),
    ("gradient norm", "did you mean 'gradient norms'"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused_and_nothing_changes(explorer: Any, values: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        explorer.overlay(values)
    assert (explorer.overlays, explorer.colour) == ([], "operator")


@pytest.mark.parametrize("name", ["bits", "", " ", 3])
def test_an_overlay_has_a_name_of_its_own(explorer: Any, name: Any) -> None:
    with pytest.raises(ConfigError, match="not a name for an overlay"):
        explorer.overlay({"0": 1.0}, name=name)


def test_several_overlays_are_kept_replaced_chosen_and_removed(explorer: Any) -> None:
    explorer.overlay({"0": 1.0}, name="one")
    explorer.overlay({"0": 2.0}, name="two")
    explorer.overlay({"0": 3.0}, name="one")
    assert [one["name"] for one in explorer.overlays] == ["two", "one"] and shown(explorer, "one") == {"conv2d": 3.0}
    explorer.colour = "two"
    with pytest.raises(ConfigError, match="no such colour"):
        explorer.colour = "three"
    with pytest.raises(ConfigError, match="there is no such overlay"):
        explorer.overlay(None, name="three")
    explorer.overlay(None, name="two")
    assert (explorer.colour, len(explorer.overlays)) == ("operator", 1)
    explorer.colour = "one"
    explorer.overlay(None)
    assert (explorer.colour, explorer.overlays) == ("operator", [])


def test_gradient_norms_are_those_of_the_models_gradients(geta: gt.GETA, explorer: Any) -> None:
    with pytest.raises(RunStateError, match="no parameter has a gradient"):
        explorer.overlay("gradient norms")
    geta.model(IMAGES).square().sum().backward()
    explorer.overlay("gradient norms")
    found = shown(explorer, "gradient norms")
    own = geta.model[8].bias.grad.square().sum() + geta.model[8].parametrizations.weight.original.grad.square().sum()
    assert found["linear"] == pytest.approx(float(own.sqrt()), rel=1e-6)  # one float32 sum in another order
    assert set(found) == {"conv2d", NORM, "conv2d_1", f"{NORM}_1", "linear"}


def test_latency_times_every_innermost_module_and_leaves_the_model_as_it_was(geta: gt.GETA, explorer: Any) -> None:
    geta.model.train()
    before = {name: tensor.clone() for name, tensor in geta.model.state_dict().items()}
    explorer.overlay("latency")
    found = shown(explorer, "latency")
    assert {"conv2d", NORM, "relu", "linear"} <= set(found) and all(value > 0 for value in found.values())
    assert explorer.overlays[0]["unit"] == "ms" and all(module.training for module in geta.model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in geta.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in geta.model if not isinstance(module, nn.BatchNorm2d))


def test_a_table_of_whole_networks_says_how_to_time_layers(explorer: Any) -> None:
    with pytest.raises(ConfigError, match=r'explorer\.overlay\("latency"\)'):
        explorer.overlay(LatencyTable((), 1, 1, "wall", {}, {}))


def test_a_sensitivity_makes_an_overlay_of_bits_and_one_of_groups(geta: gt.GETA, explorer: Any) -> None:
    sensitivity = geta.sensitivity([IMAGES], lambda model, x: model(x).square().mean(), bits=(4, 8), kept=(0.5, 0.75))
    explorer.overlay(sensitivity)
    assert [one["name"] for one in explorer.overlays] == ["sensitivity: weights at 4 bits", "sensitivity: groups at 50 %"]
    assert explorer.colour == "sensitivity: weights at 4 bits"
    assert shown(explorer, "sensitivity: weights at 4 bits") == {
        "conv2d": sensitivity.by_layer["0"][4], "conv2d_1": sensitivity.by_layer["3"][4], "linear": sensitivity.by_layer["8"][4]
    }  # fmt: skip
    groups = shown(explorer, "sensitivity: groups at 50 %")
    assert groups["conv2d"] == groups[NORM] == sensitivity.by_family["0"][0.5]
    with pytest.raises(ConfigError, match="a sensitivity of another network"):
        Explorer(gt.GETA(Residual(), IMAGES)).overlay(sensitivity)


def test_the_static_picture_has_the_overlays_colours_labels_and_legend(explorer: Any) -> None:
    explorer.overlay({"0": -1.0, "3": 3.0, "8": math.nan}, name="mine")
    drawn = explorer.static_svg()
    texts = re.findall(r">([^<>]+)</text>", drawn)
    assert {"-1", "3", "NaN or infinite (1)"} <= set(texts) and any(text.endswith("· NaN") for text in texts)
    overlay, names = explorer.overlays[0], explorer._data["nodes"]["name"]
    for colour in paint(overlay, names).colours.values():
        assert f'fill="{colour}"' in drawn
    assert explorer.page_data()["overlays"] == explorer.overlays
    bundle = explorer._repr_mimebundle_()
    assert "NaN or infinite (1)" in (bundle[0] if isinstance(bundle, tuple) else bundle)["text/html"]


def test_python_and_page_colour_alike() -> None:
    at, steps = scale_of([-1.0, 3.0])
    assert (at(0.0), at(3.0), steps[0], steps[-1]) == ("#969696", "#b2182b", at(-1.0), at(3.0))
    at, _ = scale_of([1.0, 2.0])
    assert (at(1.0), at(2.0)) == ("#440154", "#fde725")
    assert paint({"nodes": [0], "values": [None], "odd": {"0": "inf"}, "kind": "numbers", "unit": ""}, ["a"]).colours == {"a": ODD}
    assert [word(value) for value in (0.01234, 12345.0, 0.0, -2.5, 1e-7)] == ["0.0123", "12.3k", "0", "-2.5", "1.0e-07"]


def test_a_hostile_text_stays_text(explorer: Any, tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)> & </script>"
    explorer.overlay({"0": bad}, name="</script><b>")
    assert "<img" not in explorer.static_svg() and "onerror" in explorer.static_svg()
    page = explorer.to_html(tmp_path / "page.html").read_text()
    assert "<img src" not in page and page.count("</script>") == 2


def test_select_finds_modules_vertices_and_parameters(explorer: Any) -> None:
    wanted = {"3": ("module:3", ("3",)), "conv2d_1": ("vertex:conv2d_1", ("3",)), "8.weight": ("vertex:linear", ("8",))}
    for path, (selection, selected) in wanted.items():
        explorer.select(path)
        assert (explorer.selection, explorer.selected) == (selection, selected)
    explorer.select(None)
    assert (explorer.selection, explorer.selected) == ("", ())
    with pytest.raises(ConfigError, match=r"no such module, vertex or parameter(.|\n)*did you mean 'conv2d'"):
        explorer.select("conv3d")
    with pytest.raises(ConfigError, match="not a path"):
        explorer.select(3)


def test_selected_is_observed_follows_the_page_and_may_be_set(explorer: Any) -> None:
    seen: list[Any] = []
    explorer.observe(lambda change: seen.append(change["new"]), names="selected")
    explorer.set_state({"selection": "vertex:relu"})  # as a click in the page does
    explorer.set_state({"selection": "module:3"})
    explorer.set_state({"selection": "vertex:no such thing"})
    explorer.set_state({"selection": "modules:0\n3"})  # a stack
    assert seen == [("2",), ("3",), (), ("0", "3")]
    explorer.selected = "conv2d"
    assert (explorer.selection, explorer.selected) == ("vertex:conv2d", ("0",))
    explorer.selected = ("3",)
    assert explorer.selection == "module:3"
    with pytest.raises(ConfigError, match="one thing is selected at a time"):
        explorer.selected = ("3", "0")
    with pytest.raises(ConfigError, match="no such module"):
        explorer.selected = "none"
    assert explorer.selected == ("3",)
    explorer.selected = ()
    assert explorer.selection == ""


def test_a_vertex_of_the_root_is_selected_by_its_name() -> None:
    explorer = Explorer(gt.GETA(Residual(), IMAGES))
    explorer.select("add")
    assert explorer.selected == ("",)


def test_a_run_that_trains_is_not_switched_to_eval_mode(geta: gt.GETA, explorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geta_nb.widgets.module_times.run_over", lambda _: object())
    with pytest.raises(RunStateError, match="a run trains this network"):
        explorer.overlay("latency")


def test_rows_of_a_plain_network_too() -> None:
    explorer = Explorer(gt.GETA(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), ROWS, quantize=None))
    explorer.overlay({"0": 1, "1": 2})
    assert shown(explorer, "overlay") == {"linear": 1.0, "linear_1": 2.0}
