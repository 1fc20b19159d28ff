"""The digits benchmark: the agreed data and network, kept results, and a table that says what was measured."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from geta_nb import GETA
from geta_nb.bench import (
    analysis_again,
    analysis_speed,
    digits,
    digits_rows,
    digits_table,
    jobs,
    sharded_step,
    speed,
    speed_nets,
    speed_table,
    step_speed,
    step_table,
)
from geta_nb.budget import Budget
from geta_nb.errors import InputError


def test_data_are_the_agreed_split_standardised_by_the_training_part():
    data = digits.load_digits()
    assert data.train_images.shape == (1437, 3, 16, 16)
    assert data.test_images.shape == (360, 3, 16, 16)
    # float32 mean of 1.1e6 numbers of size 1: error far below 1e-4
    assert abs(float(data.train_images.mean())) < 1e-4
    assert abs(float(data.train_images.std()) - 1) < 1e-4
    assert torch.equal(data.train_images[:, 0], data.train_images[:, 2])
    # stratified: every class has its tenth, to within rounding and the classes' own sizes (174 to 183 of 1797)
    assert all(33 <= n <= 38 for n in torch.bincount(data.test_labels).tolist())


def test_validation_part_comes_from_the_training_images_alone():
    full, part = digits.load_digits(), digits.load_digits(validation=True)
    assert len(part.train_labels) + len(part.test_labels) == len(full.train_labels)
    rows = {image.numpy().tobytes() for image in full.train_images}
    assert all(image.numpy().tobytes() in rows for image in part.test_images)
    kept = {image.numpy().tobytes() for image in part.train_images}
    assert not any(image.numpy().tobytes() in kept for image in part.test_images)


def test_network_is_the_agreed_one():
    model = digits.digits_net()
    convs = [m for m in model if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [16, 16, 32, 32, 64, 64]
    assert all(c.bias is not None for c in convs)
    # by hand: convs 448 + 2320 + 4640 + 9248 + 18496 + 36928, norms 2*224, linears 64*128+128 and 128*10+10
    assert sum(p.numel() for p in model.parameters()) == 82138
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    with pytest.raises(InputError, match="width > 0"):
        digits.digits_net(0)


def test_macs_counted_by_hooks_are_those_counted_by_hand():
    by_hand = 256 * 9 * (3 * 16 + 16 * 16) + 64 * 9 * (16 * 32 + 32 * 32) + 16 * 9 * (32 * 64 + 64 * 64) + 64 * 128 + 128 * 10
    assert digits_rows.count_macs() == by_hand


def test_narrower_networks_cost_what_their_columns_say():
    shares = [digits_rows.count_macs(width) / digits_rows.count_macs() for width in digits_rows.WIDTHS.values()]
    assert [round(share, 2) for share in shares] == [0.26, 0.12, 0.07]


def test_dense_training_is_reproducible_and_learns():
    data = digits.load_digits(validation=True)
    first, second = (digits.train_dense(data, seed=1, width=0.5, epochs=3) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert digits.evaluate(first, data.test_images, data.test_labels) > 0.5  # chance is 0.1


def test_evaluate_leaves_every_mode_as_it_was():
    data = digits.load_digits(validation=True)
    model = digits.digits_net(0.1).train()
    model.norm1.eval()
    before = [m.training for m in model.modules()]
    digits.evaluate(model, data.test_images[:8], data.test_labels[:8])
    assert [m.training for m in model.modules()] == before


def test_paper_schedule_is_the_one_of_the_official_run():
    data = digits.load_digits()
    schedule = digits.paper_schedule(data)
    assert (schedule.projection_steps, schedule.joint_steps) == (8 * data.steps_per_epoch, 10 * data.steps_per_epoch)
    assert (schedule.projection_periods, schedule.joint_periods, schedule.bit_reduction) == (5, 5, 2)
    assert schedule.joint_begin == schedule.projection_end


@pytest.mark.slow
def test_one_compressed_network_meets_its_cost_and_its_subnet_computes_the_same():
    result = digits.compress_digits(0, Budget(relative_bops=0.05), epochs=3)
    assert result["relative_bops"] <= 0.05
    assert all(4 <= bits <= 16 and bits == int(bits) for bits in result["bit_widths"].values())
    assert result["max_abs_difference"] <= 1e-4
    # the same function up to 1e-4, so at most a test image on the very border may differ
    assert abs(result["accuracy"] - result["masked_accuracy"]) <= 1 / 360 + 1e-9
    json.dumps(result)


def _count(path: str, value: int) -> dict[str, int]:
    with open(path, "a") as file:
        file.write("x")
    return {"value": value}


def test_a_kept_result_is_not_made_again_until_its_arguments_change(tmp_path):
    calls = tmp_path / "calls"
    for value in (1, 1, 2, 1):
        results = jobs.run_jobs({"a": jobs.Job(_count, {"path": str(calls), "value": value})}, tmp_path / "runs", workers=1)
        assert results == {"a": {"value": value}}
    assert calls.read_text() == "xx"


def test_a_result_is_made_again_when_the_source_changes(tmp_path, monkeypatch):
    job = jobs.Job(_count, {"path": str(tmp_path / "calls"), "value": 1})
    jobs.run_jobs({"a": job}, tmp_path / "runs", workers=1)
    monkeypatch.setattr(jobs, "source_fingerprint", lambda: "other sources")
    jobs.run_jobs({"a": job}, tmp_path / "runs", workers=1)
    assert (tmp_path / "calls").read_text() == "xx"


def test_a_failed_run_keeps_the_results_before_it(tmp_path):
    good = jobs.Job(_count, {"path": str(tmp_path / "calls"), "value": 1})
    bad = jobs.Job(_count, {"path": str(tmp_path / "no folder" / "calls"), "value": 1})
    with pytest.raises(FileNotFoundError):
        jobs.run_jobs({"good": good, "bad": bad}, tmp_path / "runs", workers=1)
    jobs.run_jobs({"good": good}, tmp_path / "runs", workers=1)
    assert (tmp_path / "calls").read_text() == "x"


def test_the_table_is_made_of_means_and_shows_what_was_reached_not_what_was_asked():
    results = {
        "ours-0.032-s0": {"seed": 0, "accuracy": 0.98, "relative_bops": 0.031, "size_bytes": {"dense": 9, "subnet": 4}},
        "ours-0.032-s1": {"seed": 1, "accuracy": 0.99, "relative_bops": 0.029, "size_bytes": {"dense": 9, "subnet": 6}},
        "dense-0.33-s0": {"seed": 0, "accuracy": 0.5, "relative_bops": 0.115, "size_bytes": 7},
    }
    entries = digits_table.summary(results)
    assert entries[0]["size_bytes"] == 5
    lines = digits_table.markdown(entries).splitlines()
    assert "| ours, defaults |  |  | 98.5 at 3 % |  |  |" in lines
    assert "| narrower fp32 networks, from scratch |  |  | 50.0 at 11.5 % |  |  |" in lines
    assert "| official code * | 99.1 | 98.2 | 95.2 | 82.6 | 81.8 |" in lines
    widths = {line.count("|") for line in lines[: lines.index("")]}
    assert widths == {7}
    assert lines[0].endswith("| 100 % (dense) | 8.3 % | 3.2 % | 1.6 % | weights and activations, 0.8 % |")
    assert "| one default changed back; at most | 3.2 % | 1.6 % |" in lines
    assert "| ours, defaults | 98.5 at 3 % |  |" in lines


def test_every_row_of_the_table_is_run_for_every_seed_and_target():
    names = digits_table.all_jobs((0, 1, 2), 30)
    assert len(names) == 3 * (1 + 3 + 4 + 4 + 2 * len(digits_rows.ABLATION))
    for row in ("dense-1.0", "dense-0.25", "ours-0.083", "ours-0.008", "paper-0.016", "saliency-0.016", "schedule-0.032"):
        assert {f"{row}-s{seed}" for seed in range(3)} <= set(names)


def test_speed_nets_are_the_published_ones():
    # parameters of torchvision's models of the same names
    known = {"resnet50": 25557032, "vgg16": 138357544, "densenet121": 7978856, "mobilenet_v2": 3504872}
    with torch.device("meta"):
        assert {name: sum(p.numel() for p in speed_nets.NETS[name].build().parameters()) for name in known} == known


def test_a_missing_library_names_the_extra_that_brings_it():
    with pytest.raises(InputError, match=r"(?s)no_such_library is not installed.*pip install 'geta-nb\[bench\]'"):
        speed_nets.imported("no_such_library")


def test_speed_is_measured_by_phase_and_the_phases_add_up():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3)).eval(), (torch.rand(2, 6),)
    run = speed.run_ours(model, x, "quantized")
    assert run["runs"] and run["groups"] == 10 and run["exports"] == 1
    # 3 of 10 hidden units go: 7 * 6 + 7 + 7 * 3 + 3 of 103 parameters are left
    assert run["kept"] == 73 / 103
    assert 0 < run["phases"]["exporter"] < run["seconds"]
    # what lies between the phases is names looked up and the groups numbered; a clock ticks in hundredths at worst
    assert 0.8 * run["seconds"] < sum(run["phases"].values()) < run["seconds"] + 0.01


def test_the_weakest_share_of_each_family_goes():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 7, bias=False), nn.ReLU(), nn.Linear(7, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([3.0, 1.0, 2.0, 4.0])[:, None].expand(4, 3))
        model[2].weight.copy_(torch.tensor([9.0, 8.0, 1.0, 7.0, 6.0, 2.0, 5.0])[:, None].expand(7, 4))
    geta = GETA(model, torch.rand(2, 3), quantize=None)
    gone = [geta.groups[int(i)].producers[0] for i in speed.weakest(geta.groups.table, dict(model.named_parameters()))]
    assert [(part.parameter, part.indices) for part in gone] == [("0.weight", (1,)), ("2.weight", (2,)), ("2.weight", (5,))]


def test_speed_tables_say_what_was_measured():
    def run(seconds: float, phases: dict[str, float]) -> dict[str, object]:
        return {"seconds": seconds, "wall": 2 * seconds, "phases": phases, "kept": 0.5, "runs": False, "exports": 1}

    ours = dict.fromkeys(speed.PHASES, 0.0) | {"exporter": 1.0, "runs": 0.25}
    rounds = {mode: [run(1.5, ours)] for mode in speed.MODES} | {"torch-pruning": [run(0.75, {"build": 0.25, "prune": 0.5})]}
    row = speed_table.summary({"label": "a net", "parameters": 5, "rounds": rounds})
    line = speed_table.totals([row]).splitlines()[-1]
    mode = "1.00 (1) | 0.50 | 50 % (25 %) | 1.50 | 50 %"
    assert line == f"| a net | {mode} | {mode} | 0.25 | 0.50 | 0.75 | 50 % | **no** | 2.00 |"
    deep = [speed_table.summary({"layers": n, "rounds": {"quantized": [run(n / 4, ours)]}}) for n in (4, 8)]
    assert speed_table.depths(deep).splitlines()[-1] == "| 8 | 1.00 | 1.00 | 2.00 | 250 ms | 1.00 |"


def test_step_tables_say_what_was_measured():
    numbers = {"ratio": 1.234, "ours": 2.0, "theirs": 1.5, "whole_step": 1.05, "ns_per_parameter": 3.0}
    numbers |= {"parameters": 2_000_000, "groups": 7}
    results = {name: numbers | {"copies": 0.5} for name in step_table.all_jobs(8)}
    text = step_table.markdown(results)
    assert text.count("1.23") == 4 * 2 * 6 + 4 * 4 + 4 and text.count("1.23 (1.05)") == 16
    assert "| 100M | 2.0M | 7 | 2.0 ms | 3.0 | 1.23 |" in text and "0.500 copies" in text
    assert text.splitlines()[2].startswith("| wanted | 1.1 | 1.15 | 1.5 |")


def test_a_sharded_step_that_costs_more_than_a_whole_one_is_marked():
    def figures(ratio: float) -> dict[str, float]:
        return {"ratio": ratio, "ours": 2.0, "theirs": 1.5, "waiting": 1.75}

    kinds = [f"{optimizer}, {stage}" for optimizer in step_speed.OPTIMIZERS for stage in sharded_step.STAGES]
    found = {f"{kind}, {how}": figures(ratio) for kind in [*kinds, "training step"] for how, ratio in (("sharded", 1.25), ("whole", 1.2))}
    found["sgd, joint, sharded"] = figures(1.27)  # 1.2 and 5 % are 1.26
    sgd, adamw = sharded_step.markdown({"vit": found}).splitlines()[2:]
    assert sgd.count("1.25 (1.20) |") == 3 and sgd.count("1.27 (1.20) **+**") == 1 and "| 1.75 |" in sgd
    assert "**+**" not in adamw and adamw.endswith("| 1.25 (1.20) | 1.50 ms |")


def test_each_stage_is_measured_inside_itself():
    found = step_speed.stage_run("resnet20", "sgd", "joint", 2)
    assert found["ours"] > 0 < found["theirs"] and found["ratio"] > 0
    with pytest.raises(KeyError):
        step_speed.stage_run("resnet20", "sgd", "no stage", 2)


def test_a_training_step_holds_at_most_one_more_copy_of_the_quantized_weights():
    facts = step_speed.memory_run(512)
    # x^Q lives from the forward to the backward pass; what blocks and foreach calls need beside it is small
    assert facts["weights"] == 4 * (4 * 512 * 512 + 5120) and facts["copies"] <= 1.05


def test_an_analysis_is_measured_by_mode_and_the_exporter_runs_once_in_each():
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))

    found = analysis_speed.measure(build, lambda: (torch.rand(2, 6),))
    assert set(found) == set(analysis_speed.MODES)
    assert all(mode["exports"] == 1 and 0 < mode["exporter"] < mode["seconds"] for mode in found.values())
    fixed = {mode: {"seconds": 2.0, "exporter": 0.5, "exports": 1} for mode in analysis_speed.MODES}
    assert analysis_speed.row("a net", [fixed]) == "| a net | 2.00 (0.50) | 2.00 (0.50) | 2.00 (0.50) |\n"


def test_a_second_analysis_is_measured_on_the_model_of_the_first_and_rounds_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(analysis_again, "BUILDS", {"flat": ("a chain", lambda: torch.nn.Linear(16, 4), analysis_again.rows)})
    kept = tmp_path / "rounds.json"
    found = analysis_again.rounds_of("flat", 1, kept)
    assert set(found[0]) == {"export", *analysis_speed.MODES, *(f"{mode}, again" for mode in analysis_speed.MODES)}
    assert analysis_again.rounds_of("flat", 2, kept)[0] == found[0] and len(analysis_again.rounds_of("flat", 2, kept)) == 2
    fixed = {name: 0.5 if "again" in name else 2.0 for name in found[0]} | {"export": 1.0}
    assert analysis_again.row("flat", [fixed]) == "| a chain | 1.00 | 2.00 (2.00) | 25% | 2.00 (2.00) | 25% | 2.00 (2.00) | 25% |\n"
