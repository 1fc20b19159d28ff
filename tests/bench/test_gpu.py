"""What ``make bench-gpu`` does without a GPU, and every one of its parts on the CPU, with little networks."""

from __future__ import annotations

import json
import time

import pytest
import torch

from geta_nb.bench import gpu, gpu_cells, gpu_table
from geta_nb.bench.gpu_cells import Setting, cells
from geta_nb.errors import InputError

SMALL = Setting("cpu", 3, small=True, compiler="aot_eager")


def test_without_a_gpu_it_says_so_in_one_line_and_ends_well(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "no GPU" in said and not (tmp_path / "out").exists()


def test_its_parts_take_less_than_eight_minutes_together():
    assert sum(gpu.SECONDS.values()) <= 8 * 60 - 20  # what is left is for making the table


def test_cells_are_all_that_is_promised():
    setting = Setting()
    names = {part: list(cells(part, setting)) for part in ("steps", "passes", "throughput", "memory")}
    assert "resnet20, sgd, joint" in names["steps"] and "bert_mini, adamw, selection" in names["steps"]
    ways = {(name.split(", ")[-2], name.split(", ")[-1]) for name in names["passes"]}
    assert ways == {(precision, way) for precision in ("float32", "bfloat16") for way in gpu_cells.WAYS}
    assert names["throughput"] == ["float32", "bfloat16"] and names["memory"] == ["theirs", "ours"]


@pytest.mark.parametrize("cell", ["mlp, sgd, joint", "mlp, adamw, selection", "mlp, adamw, joint (paper's rules)"])
def test_a_step_is_measured(cell):
    found = cells("steps", SMALL)[cell]()
    assert found["ratio"] > 0 and found["ours"] > 0 and found["theirs"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("way", gpu_cells.WAYS)
@pytest.mark.parametrize("precision", gpu_cells.PRECISIONS)
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_passes_are_measured_in_every_way(way, precision):
    found = cells("passes", SMALL)[f"mlp, weights and inputs, {precision}, {way}"]()
    assert found == {"left_out": "CUDA graphs are CUDA's"} if way == "CUDA graphs" else found["whole_step"] > 0


@pytest.mark.slow
def test_images_a_second_are_those_of_the_step():
    found = cells("throughput", SMALL)["bfloat16"]()
    assert found["ours_images_per_second"] == pytest.approx(4e3 / found["ours"])


@pytest.mark.slow
def test_memory_of_a_step_holds_weights_gradients_and_state():
    found = {side: cells("memory", SMALL)[side]() for side in ("theirs", "ours")}
    least = 4 * 4 * found["theirs"]["weights"]  # float32: a weight, its gradient, two averages
    assert least <= found["theirs"]["peak_bytes"] <= found["ours"]["peak_bytes"]


def test_the_language_model_has_1_3_billion_weights():
    with torch.device("meta"):
        model = gpu_cells.language_model(small=False)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.3e9, rel=0.05)


def test_a_cell_that_fails_is_named_and_the_others_are_measured(monkeypatch, tmp_path):
    def broken():
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(gpu, "cells", lambda part, setting: {"one": broken, "two": lambda: {"ratio": 2.0, "ours": 2.0, "theirs": 1.0}})
    gpu.measure("steps", SMALL, tmp_path / "steps")
    found = gpu.read_results(tmp_path, ["steps"])
    assert found["steps"]["one"] == {"failed": "RuntimeError: out of memory"} and found["steps"]["two"]["ratio"] == 2
    text = gpu_table.markdown(found, {"device": "X"}, ["steps: three"])
    assert "| two | 2.00 | 2.00 ms | 1.00 ms |" in text and "Failed: steps: one" in text
    assert "Left out, for want of time: steps: three." in text


def test_no_cell_begins_when_time_is_over(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "cells", lambda part, setting: {"one": lambda: pytest.fail("too late")})
    gpu.measure("steps", SMALL, tmp_path / "steps", until=time.monotonic() - 1)
    assert gpu.read_results(tmp_path, ["steps"]) == {"steps": {}}


def test_the_page_has_a_place_for_the_table(root, tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text((root / "docs/gpu.md").read_text())
    gpu_table.put_into(page, "a table\n")
    text = page.read_text()
    assert f"{gpu_table.BEGIN}\na table\n{gpu_table.END}" in text and text.startswith("# On a GPU") and "## What was not tried" in text
    page.write_text("none")
    with pytest.raises(InputError, match=r"no place for the table[\s\S]*bench-gpu: begin"):
        gpu_table.put_into(page, "a table\n")


@pytest.mark.slow
def test_the_whole_command_writes_its_results_and_what_it_left_out(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "SECONDS", gpu.SECONDS | {"throughput": 0.01, "memory": 400})
    monkeypatch.setattr(gpu, "run_tests", lambda seconds: {"code": 0, "summary": "3 passed"})
    options = ["--device", "cpu", "--small", "--rounds", "3", "--output", str(tmp_path), "--parts", "tests", "throughput", "memory"]
    assert gpu.main(options) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["left_out"] == ["throughput: float32", "throughput: bfloat16"]
    assert table["results"]["memory"]["ours"]["peak_bytes"] > 0
    text = capsys.readouterr().out
    assert "Tests of the device paths: 3 passed." in text and text == (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_tests_that_are_not_done_in_time_are_named(monkeypatch):
    assert gpu.run_tests(0.01) == {"failed": "not done within 0 s"}
    monkeypatch.setattr(gpu, "TESTS", ("never.py",))
    assert "left_out" in gpu.run_tests(1)
