"""The fashion benchmark: files read as they claim, test images read last, costs met, runs remade only when stale."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geta_nb.baselines import narrow
from geta_nb.baselines.space import Space, check_met
from geta_nb.bench import code_of, fashion_rows, fashion_run, fashion_table, fashion_task, geta_again, geta_run, idx_files, kept_runs
from geta_nb.bench.fashion_rows import COLUMNS, FIRST, ROWS, Planned
from geta_nb.bench.fashion_task import TEST, TRAIN, Fashion
from geta_nb.cost import CostModel
from geta_nb.errors import BudgetError, InputError

N_TRAIN, N_TEST = 120, 40


def pictures(count: int, shade: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one shade each split: who has seen which one is plain. The class is a bright row."""
    labels = torch.arange(count) % 10
    images = torch.full((count, 28, 28), shade, dtype=torch.uint8)
    images[torch.arange(count), 2 * labels] = 255
    return images, labels.to(torch.uint8)


def write_data(place: Path, n_train: int) -> Path:
    for names, (images, labels) in ((TRAIN, pictures(n_train, 10)), (TEST, pictures(N_TEST, 200))):
        idx_files.write_idx(place / f"{names[0]}.gz", images)
        idx_files.write_idx(place / names[1], labels)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("fashion"), N_TRAIN)


@pytest.fixture(scope="module")
def space() -> Space:
    images = torch.zeros(2, 1, 28, 28)
    parts = {"batches": lambda _: (), "calibration": images, "check": (images, images), "evaluate": lambda _: 0.0}
    return Space(fashion_task.Task(build=fashion_task.fashion_net, steps_per_epoch=1, **parts))


# the files


def test_missing_files_say_how_to_get_them(tmp_path, capsys):
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        fashion_task.fashion_task(tmp_path)
    assert fashion_table.main(["--data-dir", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "apt-get install dataset-fashion-mnist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(3, 28, 28), torch.zeros(2), "do not fit"),
        (torch.zeros(2, 28, 27), torch.zeros(2), "do not fit"),
        (torch.zeros(0, 28, 28), torch.zeros(0), "at least one image"),
        (torch.zeros(2, 28, 28), torch.tensor([0, 10]), "a label has no class"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(folder, tmp_path, images, labels, words):
    for names in (TRAIN, TEST):
        idx_files.write_idx(tmp_path / names[0], images.byte())
        idx_files.write_idx(tmp_path / names[1], labels.byte())
    with pytest.raises(InputError, match=words):
        fashion_task.read_pair(tmp_path, TRAIN)


def test_shared_data_are_found_where_the_system_keeps_them(tmp_path, monkeypatch):
    place = tmp_path / "b" / "datasets" / "fashion-mnist"
    place.mkdir(parents=True)
    monkeypatch.setenv("XDG_DATA_DIRS", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert fashion_task.usual_folder() == place


# the split


def test_training_images_are_standardised_and_mirrored_half_of_the_time(folder):
    data = Fashion(folder)
    batches = list(data.batches(torch.Generator().manual_seed(0)))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert images.shape == (N_TRAIN, 1, 28, 28) and sorted(labels.tolist()) == sorted(data.train[1].tolist())
    # float32 sums of 94080 numbers of size 1
    assert abs(float(images.mean())) < 1e-4 and abs(float(images.std()) - 1) < 1e-4
    lopsided = Fashion(folder)
    lopsided.train[0][..., 0] = 77
    flipped = torch.cat([part for part, _ in lopsided.batches(torch.Generator().manual_seed(0))])
    left = torch.isclose(flipped[:, 0, 27, 0], lopsided.standardised(torch.tensor(77)))
    right = torch.isclose(flipped[:, 0, 27, 27], lopsided.standardised(torch.tensor(77)))
    assert torch.equal(left, ~right)
    # 120 fair coins: five deviations are 27
    assert abs(int(left.sum()) - 60) < 28


def test_validation_holds_back_the_last_sixth_and_reads_no_test_image(folder, tmp_path):
    for names in TRAIN:
        found = idx_files.find_idx(folder, names)
        (tmp_path / found.name).write_bytes(found.read_bytes())
    for name in TEST:
        (tmp_path / name).write_bytes(b"not to be read")
    data = Fashion(tmp_path, validation=True)
    assert len(data.train[1]) == 100
    assert torch.equal(data.judges()[1], fashion_task.read_pair(tmp_path, TRAIN)[1][100:])
    data.evaluate(fashion_task.fashion_net(0.1))
    assert fashion_task._held_back(60_000) == 10_000
    with pytest.raises(InputError, match="not such a file"):
        Fashion(tmp_path).evaluate(fashion_task.fashion_net(0.1))


@pytest.mark.parametrize(("row", "column"), [("narrow2", "a0.4"), ("lsq", "a0.8"), ("geta", "w3.2"), ("eagleeye", "a0.8")])
def test_no_run_reads_its_judges_before_its_training_is_done(row, column, folder, space, monkeypatch):
    events = []
    read, step = fashion_task.read_pair, torch.optim.Adam.step

    def watched_read(place: Path, names: tuple[str, str]):
        events.append("test" if names == TEST else "train")
        return read(place, names)

    def watched_step(self, *args, **kwargs):
        events.append("step")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(fashion_task, "read_pair", watched_read)
    monkeypatch.setattr(torch.optim.Adam, "step", watched_step)
    fashion_run._task.cache_clear()
    method, options = ROWS[row].method, ROWS[row].options
    fingerprint = fashion_run.what_decides(method, column, options)
    figures = fashion_run.fashion_run(method, column, 0, options, folder=str(folder), smoke=True, fingerprint=fingerprint)
    fashion_run._task.cache_clear()
    assert figures["relative_bops"] <= COLUMNS[column].relative_bops
    assert 0 <= figures["accuracy"] <= 1 and json.dumps(figures)
    assert events[0] == "train" and events.count("test") == 1
    assert "step" in events and "step" not in events[events.index("test") :]


# the costs


def test_the_network_is_the_digits_one_for_small_grey_images():
    model = fashion_task.fashion_net()
    convs = [m for m in model if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [16, 16, 32, 32, 64, 64] and convs[0].stride == (2, 2)
    by_hand = 196 * 9 * (16 + 16 * 16) + 49 * 9 * (16 * 32 + 32 * 32) + 9 * 9 * (32 * 64 + 64 * 64) + 64 * 128 + 128 * 10
    assert narrow.multiply_accumulates(model, torch.zeros(1, 1, 28, 28)) == by_hand == 1664320


def test_the_width_is_the_largest_whose_cost_is_within_the_column():
    image = torch.zeros(1, 1, 28, 28)
    whole = narrow.multiply_accumulates(fashion_task.fashion_net(), image)
    for share in (0.5, 0.032, 0.004):
        width = narrow.affordable_width(fashion_task.fashion_net, image, share)
        costs = [narrow.multiply_accumulates(fashion_task.fashion_net(w), image) / whole for w in (width, width + 0.001)]
        assert costs[0] <= share < costs[1]
    assert narrow.affordable_width(fashion_task.fashion_net, image, 1.0) == 1.0
    assert narrow.affordable_width(fashion_task.fashion_net, image, 2.0) == 1.0, "no wider than the dense one, unless asked for"
    wider = narrow.affordable_width(fashion_task.fashion_net, image, 2.0, widest=3.0)
    assert 1.3 < wider < 1.5  # about the root of 2
    assert narrow.multiply_accumulates(fashion_task.fashion_net(wider), image) <= 2 * whole
    with pytest.raises(BudgetError, match="one channel a layer"):
        narrow.affordable_width(fashion_task.fashion_net, image, 1e-4)


def test_the_width_does_not_depend_on_the_seed_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    narrow.affordable_width(fashion_task.fashion_net, torch.zeros(1, 1, 28, 28), 0.1)
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("bits", [2, 4, 32])
def test_narrow_networks_have_their_bits_from_the_first_step(bits, folder, space):
    task = dataclasses.replace(fashion_task.fashion_task(folder, smoke=True), epochs=1)
    result = narrow.compress(task, 0.008, seed=0, activations=True, space=space, bits=bits, build=fashion_task.fashion_net)
    assert result.relative_bops <= 0.008
    assert set(result.weight_bits.values()) == set(result.activation_bits.values()) == ({bits} if bits < 32 else set())
    # MACs times both bits over those of the dense network, by the formula
    assert result.relative_bops == pytest.approx(result.macs * bits * bits / 1024)
    if bits < 32:
        assert len(result.model.conv2.weight.unique()) <= 2**bits


# what is kept


def test_finished_runs_are_skipped_and_stale_ones_made_again(folder, tmp_path, monkeypatch, capsys):
    made = []

    def run(method, column, seed, options, **where):
        made.append((method, column, where["validation"]))
        return {"accuracy": 0.5, "relative_bops": 0.01, "notes": {}, "seconds": 60.0}

    monkeypatch.setattr(fashion_table, "fashion_run", run)
    arguments = ["--data-dir", str(folder), "--output", str(tmp_path), "--results", str(tmp_path / "runs.jsonl"), "--workers", "1"]
    arguments += ["--only", "lsq", "--only", "djpq"]
    assert fashion_table.main(arguments) == 0
    assert [validation for *_, validation in made] == 8 * [True] + 8 * [False], "what chooses the leaders, then the test runs"
    out = capsys.readouterr()
    assert "0 of 8 runs are there; about 16 min left" in out.err, "two minutes each, as long as none is known"
    assert "4 of 8; about 4 min left" in out.err and "8 of 8; nothing left" in out.err
    assert "8 of 16 runs are there; about 8 min left" in out.err, "the validation runs say how long the others take"
    assert fashion_table.main(arguments) == 0
    assert len(made) == 16, "all of them are there"
    before = fashion_run.what_decides

    def changed(method, *others):
        return before(method, *others)[:: -1 if method == "djpq" else 1]

    monkeypatch.setattr(fashion_table, "what_decides", changed)
    assert fashion_table.main([*arguments, "--kept"]) == 0
    assert "4 of 77 runs." in capsys.readouterr().out, "stale runs are not in the table"
    assert fashion_table.main(arguments) == 0
    assert [method for method, *_ in made[16:]] == ["djpq"] * 2 * len(FIRST)
    assert len(kept_runs.read_runs(tmp_path / "runs.jsonl")) == 16


def test_a_run_that_fails_leaves_the_others_and_the_command_says_so(folder, tmp_path, monkeypatch, capsys):
    def run(method, column, seed, options, **where):
        if column == "a0.8" and not where["validation"]:
            raise ZeroDivisionError("by hand")
        return {"accuracy": 0.5, "relative_bops": 0.001, "notes": {}, "seconds": 1.0}

    monkeypatch.setattr(fashion_table, "fashion_run", run)
    arguments = ["--data-dir", str(folder), "--output", str(tmp_path), "--results", str(tmp_path / "runs.jsonl"), "--workers", "1"]
    assert fashion_table.main([*arguments, "--only", "lsq"]) == 1
    name = fashion_table.Wanted(Planned("lsq", "a0.8"), ROWS["lsq"].options).name
    assert f"failed: {name}: ZeroDivisionError: by hand" in capsys.readouterr().err
    runs = kept_runs.read_runs(tmp_path / "runs.jsonl")
    planned = {(part, column.name) for part in ("test", "validation") for column in FIRST}
    assert {(run.part, run.column) for run in runs} == planned - {("test", "a0.8")}


def test_what_no_method_can_reach_is_kept_with_its_reason_and_a_defect_is_not(folder, monkeypatch):
    def run() -> dict:
        fingerprint = fashion_run.what_decides("lsq", "w1.6", {})
        return fashion_run.fashion_run("lsq", "w1.6", 0, {}, folder=str(folder), smoke=True, fingerprint=fingerprint)

    assert run() == {"out_of_reach": "uniform_bits: out of reach without pruning. expected relative_bops >= 0.0625, got 0.016"}

    def defect(*_: object, **__: object) -> None:
        check_met(SimpleNamespace(relative_bops=0.02), 0.016, "LSQ")

    monkeypatch.setattr(fashion_run, "METHODS", {"lsq": defect})
    with pytest.raises(BudgetError, match="over the budget"):
        run()
    fashion_run._task.cache_clear()


def test_code_that_changed_since_the_command_began_makes_no_number(folder):
    with pytest.raises(InputError, match="changed while the command ran"):
        fashion_run.fashion_run("lsq", "a0.8", 0, {}, folder=str(folder), fingerprint="of other code")


def test_validation_compares_options_and_reads_no_test_image(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fashion_task, "TEST", ("gone", "gone too"))
    monkeypatch.setattr(fashion_table, "check_folder", lambda _: None)
    monkeypatch.setattr(fashion_task, "check_folder", lambda _: None)
    fashion_run._task.cache_clear()
    arguments = ["--data-dir", str(folder), "--output", str(tmp_path), "--validate", "--smoke", "--workers", "1", "--only", "lsq"]
    assert fashion_table.main(arguments) == 0
    fashion_run._task.cache_clear()
    text = capsys.readouterr().out
    own, others = (json.dumps(options, sort_keys=True) for options in (ROWS["lsq"].options, ROWS["lsq"].tried[0]))
    assert f"| LSQ, fixed bits | **{own}** |" in text and f"| LSQ, fixed bits | {others} |" in text
    runs = kept_runs.read_runs(tmp_path / "smoke.jsonl")
    assert {run.part for run in runs} == {"validation"}
    assert len(runs) == len(fashion_table.TUNED_AT) * (1 + len(ROWS["lsq"].tried)), "a line each"
    arguments[arguments.index("--only") :] = ["--kept"]
    assert fashion_table.main(arguments) == 0
    assert capsys.readouterr().out == text == (tmp_path / "validation.md").read_text()


# which code


def test_a_number_depends_on_its_own_method_and_not_on_others():
    def code(method: str) -> set[str]:
        return code_of.closure([fashion_run.METHODS[method].__module__, "geta_nb.bench.fashion_task"])

    assert {"geta_nb.baselines.lsq", "geta_nb.baselines.space", "geta_nb.bench.small_net"} <= code("lsq")
    assert not [name for name in code("lsq") if name.split(".")[1] in ("qasso", "quantizers", "geta", "budget", "display", "groups")]
    assert {"geta_nb.quantizers.fake_quant", "geta_nb.baselines.gates"} <= code("djpq") and "geta_nb.geta" not in code("djpq")
    for method in ("geta", "hesso"):
        assert {"geta_nb.geta", "geta_nb.budget", "geta_nb.qasso.saliency", "geta_nb.qasso.schedule"} <= code(method)
    assert "geta_nb.baselines.lsq" in code("narrow") and "geta_nb.baselines.lsq" not in code("geta")


def test_words_do_not_make_a_run_stale_and_code_does():
    source = 'def f(x):\n    """What."""\n    return x + 1\n'
    worded = '"""More."""\n# why\n\ndef f(x):\n    """What\n    and more."""\n\n    return x + 1  # one\n'
    assert code_of.bare(source) == code_of.bare(worded) == "def f(x):\n    return x + 1"
    assert code_of.bare(source.replace("+ 1", "+ 2")) != code_of.bare(source)
    assert code_of.bare('x = "# no comment"') == 'x = "# no comment"'


def test_the_fingerprint_follows_code_analysis_options_and_column(space, monkeypatch):
    decides = fashion_run.what_decides
    plain = decides("lsq", "a0.8", {})
    assert plain == decides("lsq", "a0.8", {}) != decides("lsq", "a0.8", {"dense_share": 0.5})
    assert len({plain, decides("lsq", "w0.8", {}), decides("djpq", "a0.8", {})}) == 3
    monkeypatch.setattr(fashion_run, "_analysis", lambda: "another")
    assert decides("lsq", "a0.8", {}) != plain
    other = Space(dataclasses.replace(space.task, build=lambda: fashion_task.fashion_net(0.5)))
    found = code_of.analysis_fingerprint(space)
    assert found == code_of.analysis_fingerprint(Space(space.task)) != code_of.analysis_fingerprint(other)
    evaluate = CostModel.evaluate
    monkeypatch.setattr(CostModel, "evaluate", lambda self, *a: dataclasses.replace(evaluate(self, *a), bops=1.0))
    assert code_of.analysis_fingerprint(space) != found, "another way to count"


def test_the_time_left_knows_slow_rows():
    missing = {str(n): fashion_table.Wanted(Planned("djpq", "w1.6", n), {}) for n in range(3)}
    assert fashion_table.time_left(missing, {}, 2) == "about 3 min left"
    assert fashion_table.time_left(missing, {"lsq at w1.6": 60.0}, 1) == "about 3 min left"
    assert fashion_table.time_left(missing, {"lsq at w1.6": 60.0, "djpq at w3.2": 3600.0}, 1) == "about 3 h 0 min left"
    assert fashion_table.time_left({}, {}, 2) == "nothing left"


def test_a_run_too_short_for_its_schedule_is_not_taken_for_a_result(folder):
    task = dataclasses.replace(fashion_task.fashion_task(folder, smoke=True), epochs=4)  # one step an epoch
    with pytest.raises(BudgetError, match=r"GETA: over the budget(?s:.*)after 4 steps"):
        geta_run.compress_task(task, 0.032, seed=0, paper=True)


def test_a_network_of_getas_widths_from_scratch_has_them_and_the_bits_but_none_of_the_weights(folder, monkeypatch):
    task = dataclasses.replace(fashion_task.fashion_task(folder, smoke=True), epochs=30)
    begun: list[dict[str, torch.Tensor]] = []
    train = geta_again.train

    def watched(model, *arguments, **options):
        begun.append({name: value.clone() for name, value in model.state_dict().items()})
        return train(model, *arguments, **options)

    monkeypatch.setattr(geta_again, "train", watched)
    pruned = geta_run.compress_task(task, 0.004, seed=1, activations=True, bits=3)
    again = geta_again.compress(task, 0.004, seed=1, activations=True, bits=3)
    assert {key: again[key] for key in ("weight_bits", "activation_bits", "macs", "relative_bops", "size_bytes")} == {
        key: pruned[key] for key in ("weight_bits", "activation_bits", "macs", "relative_bops", "size_bytes")
    }
    wide, narrow = begun
    shapes = {name.rpartition(".")[0]: len(value) for name, value in narrow.items() if name.endswith("weight") and value.dim() > 1}
    assert again["notes"]["widths"] == shapes
    assert sum(shapes.values()) < sum(len(value) for name, value in wide.items() if name.endswith("weight") and value.dim() > 1)
    assert all(value.abs().sum() > 0 for name, value in narrow.items() if name.endswith("weight"))
    assert all(bool((value == 1).all()) for name, value in narrow.items() if name.endswith("running_var"))


def test_what_geta_found_is_no_rival_of_geta():
    assert "again" not in {row for rows, _ in fashion_rows.RIVALS for row in rows}


@pytest.mark.slow
def test_every_row_runs_in_two_processes_and_meets_its_column(tmp_path, monkeypatch):
    folder = write_data(tmp_path, 400)  # four steps an epoch: the paper's stages need ten
    planned = [run for run in fashion_rows.first_wave() if run.column in ("dense", "w3.2", "a0.4")]
    monkeypatch.setattr(fashion_table, "smoke_runs", lambda: planned)
    assert fashion_table.main(["--data-dir", str(folder), "--output", str(tmp_path), "--smoke"]) == 0
    runs = kept_runs.read_runs(tmp_path / "smoke.jsonl")
    assert {(run.row, run.column) for run in runs} == {(run.row, run.column) for run in planned}
    assert all(run.figures["relative_bops"] <= COLUMNS[run.column].relative_bops for run in runs if "relative_bops" in run.figures)
    # 2 bits in every weight cost 6.25 %: who prunes nothing is out of reach of 3.2 %, and nobody of 0.4 % with quantized inputs
    assert {(run.row, run.column) for run in runs if "out_of_reach" in run.figures} == {("lsq", "w3.2"), ("minmax", "w3.2")}
