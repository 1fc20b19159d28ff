"""Claims about the report: the public keys, hand-worked figures, plain JSON, and a file that is whole or untouched."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from geta_nb.cost import report as report_module
from geta_nb.cost.report import build_report
from geta_nb.errors import ConfigError
from tests.cost.nets import alive_without, three_layers

KEYS = {
    "group_sparsity", "target_group_sparsity", "bit_widths", "activation_bit_widths", "parameters", "macs", "size_bytes", "relative_bops",
    "relative_bops_full", "max_abs_difference", "module_kind", "dynamic_axes", "predicted_rise", "allocation", "layers", "metrics",
    "versions",
}  # fmt: skip


def make_report(**changes):
    options = {
        "weight_bits": {"conv1": 8.0, "conv2": 4, "fc": torch.tensor(6.0)},
        "activation_bits": {"conv1": 8, "conv2": 8, "fc": 4},
        "max_abs_difference": 1e-6,
        "module_kind": "native",
        "target_group_sparsity": 0.3,
    }
    return build_report(three_layers(), alive_without(0, 5, 9), **(options | changes))


def test_report_has_the_public_keys_and_no_other():
    assert set(make_report().to_dict()) == KEYS


def test_report_figures_are_those_worked_out_by_hand():
    facts = make_report().to_dict()  # the network of test_cost: 3 of 10 groups gone
    assert facts["group_sparsity"] == 0.3 and facts["target_group_sparsity"] == 0.3
    assert facts["parameters"] == {"dense": 404, "subnet": 84 + 112 + 50}
    assert facts["macs"] == {"dense": 20796, "subnet": 12136, "dense_full": 20796, "subnet_full": 12136}  # 5184 + 6912 + 40
    assert facts["size_bytes"] == {"dense": 1616, "subnet": 233}
    assert facts["relative_bops"] == facts["relative_bops_full"] == 553920 / (1024 * 20796)
    assert facts["bit_widths"] == {"conv1": 8, "conv2": 4, "fc": 6}
    assert facts["activation_bit_widths"] == {"conv1": 8, "conv2": 8, "fc": 4}
    assert facts["max_abs_difference"] == 1e-6 and facts["module_kind"] == "native"


def test_a_layer_row_stands_before_and_after():
    row = make_report().to_dict()["layers"][1]
    assert row == {
        "layer": "conv2", "module_path": "conv2", "operator": "conv2d", "channels_before": 6, "channels_after": 4, "bits": 4,
        "activation_bits": 8, "macs_before": 13824, "macs_after": 6912, "macs_full_before": 13824, "macs_full_after": 6912,
        "bops_before": 13824 * 1024, "bops_after": 6912 * 32, "bops_full_before": 13824 * 1024, "bops_full_after": 6912 * 32,
        "parameters_before": 222, "parameters_after": 112, "size_bytes_before": 888, "size_bytes_after": 70,
    }  # fmt: skip


def test_rows_add_up_to_the_totals():
    facts = make_report().to_dict()
    for key in ("parameters", "macs", "size_bytes"):
        assert sum(row[f"{key}_before"] for row in facts["layers"]) == facts[key]["dense"]
        assert sum(row[f"{key}_after"] for row in facts["layers"]) == facts[key]["subnet"]


def test_bits_are_integers_when_they_are_whole_and_stay_fractions_before_cool_down():
    widths = make_report(weight_bits={"conv1": 8.0, "conv2": 5.25}).to_dict()["bit_widths"]
    assert widths == {"conv1": 8, "conv2": 5.25} and isinstance(widths["conv1"], int)


def test_zero_groups_that_rounding_kept_count_as_zero():
    assert make_report(zero_groups=5).group_sparsity == 0.5


def test_a_second_report_is_measured_against_the_first_dense_model():
    first = make_report()
    second = build_report(
        three_layers(dense=first.costs.dense), alive_without(0), weight_bits={}, activation_bits={}, max_abs_difference=0.0,
        module_kind="graph",
    )
    assert second.to_dict()["macs"]["dense"] == 20796
    assert second.to_dict()["target_group_sparsity"] is None


def test_metrics_become_plain_values():
    speed = {"dense": 2.0, "subnet": (1, 2.5)}
    metrics = {"accuracy": np.float32(0.5), "f1": torch.tensor(0.25), "n": np.int64(3), "speed": speed, "ok": True}
    facts = make_report(metrics=metrics).to_dict()["metrics"]
    assert facts == {"accuracy": 0.5, "f1": 0.25, "n": 3, "speed": {"dense": 2.0, "subnet": [1, 2.5]}, "ok": True}
    assert json.loads(json.dumps(facts)) == facts


def test_a_metric_that_is_not_finite_is_null_with_its_reason():
    facts = make_report(metrics={"loss": float("nan"), "runs": {"a": torch.tensor(torch.inf), "b": 1}, "list": [1.0, np.nan]}).to_dict()
    assert facts["metrics"] == {
        "loss": None,
        "loss_reason": "was nan, which JSON cannot hold",
        "runs": {"a": None, "a_reason": "was inf, which JSON cannot hold", "b": 1},
        "list": [1.0, None],
    }


@pytest.mark.parametrize("difference", [None, float("nan"), float("inf")])
def test_a_difference_that_could_not_be_measured_is_null(difference):
    assert make_report(max_abs_difference=difference).to_dict()["max_abs_difference"] is None


def test_a_metric_that_json_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match=r"not JSON-able(.|\n)*metrics\['logits'\](.|\n)*ndarray"):
        make_report(metrics={"logits": np.zeros(3)})
    with pytest.raises(ConfigError, match="name of a metric is text"):
        make_report(metrics={1: 2.0})


def test_an_unknown_kind_of_module_is_refused():
    with pytest.raises(ConfigError, match="native or graph"):
        make_report(module_kind="onnx")


def test_versions_name_what_the_numbers_depend_on():
    versions = make_report().to_dict()["versions"]
    assert set(versions) == {"python", "geta-nb", "torch", "numpy"}
    assert versions["numpy"] == np.__version__


def test_save_writes_json_that_reads_back(tmp_path):
    made = make_report(metrics={"accuracy": 0.9, "loss": float("nan")})
    path = made.save(tmp_path / "report.json")
    assert json.loads(path.read_text(encoding="utf-8")) == made.to_dict()
    assert os.listdir(tmp_path) == ["report.json"]


def test_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def full_disk(*_):
        raise OSError("disk full")

    monkeypatch.setattr(report_module.os, "replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        make_report().save(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_report_shows_itself_without_dumping_its_fields():
    assert len(repr(make_report())) < 300
