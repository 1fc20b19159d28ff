"""The language-model table: one training for all rows, what is kept and what is not, and a page that says what was measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from geta_nb.bench import lm_cells, lm_rates, lm_run, lm_table, lm_task
from geta_nb.bench.kept_runs import KeptRun, keep_run, read_runs
from geta_nb.errors import InputError

SMOKE = lm_task.SIZES["smoke"]
pytest.importorskip("transformers")


def run(row: str, column: str, after: float, *, part: str = "test", seed: int = 0, **more: object) -> KeptRun:
    figures = {"before": {"test": 50.0}, "after": {"test": after, "validation": 1.0}, "parameters": 2_500_000, "file_bytes": 1_234_567}
    return KeptRun(part, row, column, seed, {}, lm_run.settings(row, column, "full"), "abc", figures | {"heads": [8, 3]} | more)


def test_batches_are_a_function_of_seed_and_step_and_an_epoch_reads_each_row_once():
    rows = torch.arange(20)[:, None]
    whole = list(lm_task.batches(rows, 4, seed=3, first=0, last=12))
    assert [part.tolist() for part in lm_task.batches(rows, 4, seed=3, first=7, last=12)] == [part.tolist() for part in whole[7:]]
    assert sorted(torch.cat(whole[:5]).flatten().tolist()) == list(range(20))
    assert torch.cat(whole[:5]).tolist() != torch.cat(whole[5:10]).tolist()


def test_the_learning_rate_rises_falls_and_does_not_fall_where_it_is_told_so():
    shares = [lm_task.rate_share(step, 100) for step in range(100)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=0.01)
    assert all(a >= b for a, b in pairwise(shares[5:]))
    assert shares[-1] == pytest.approx(0.05, abs=0.001)
    assert {lm_task.rate_share(step, 100, fall=False) for step in range(5, 100)} == {1.0}


def test_judged_text_is_of_files_that_nothing_trains_on_and_of_no_file_twice():
    text = lm_task.read_text(SMOKE)
    parts = [{tuple(row) for row in part.tolist()} for part in (text.rows, text.validation.held, text.test.held)]
    assert all(parts)
    assert not parts[1] & parts[2]
    assert not parts[0] & (parts[1] | parts[2])


def test_layers_that_are_put_in_between_begin_as_identities():
    few = lm_task.network(replace(SMOKE, layers=2), seed=0).eval()
    deep = lm_task.deepened(few, lm_task.network(replace(SMOKE, layers=4), seed=1)).eval()
    tokens = torch.randint(0, SMOKE.vocabulary, (2, 9))
    with torch.no_grad():
        assert torch.equal(deep(tokens).logits, few(tokens).logits)
    inner = [layer.self_attn.q_proj.weight for layer in deep.model.layers]
    assert not torch.equal(inner[1], inner[2]), "no layer repeats another"


def test_the_full_network_is_of_thirty_million_parameters_mostly_in_blocks():
    with torch.device("meta"):
        net = lm_task.network(lm_task.SIZES["full"])
    total = sum(p.numel() for p in net.parameters())
    blocks = sum(p.numel() for p in net.model.layers.parameters())
    assert 28e6 < total < 32e6
    assert blocks / total > 0.9


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(lm_task, "CHECKPOINT_STEPS", 2)
    expected = lm_task.trained_dense(SMOKE, tmp_path / "whole").state_dict()

    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("dense: step 4"):
            raise Stopped

    with pytest.raises(Stopped):
        lm_task.trained_dense(SMOKE, tmp_path / "parts", say=stop)
    said: list[str] = []
    found = lm_task.trained_dense(SMOKE, tmp_path / "parts", say=said.append).state_dict()
    assert [line.split(",")[0] for line in said] == ["dense: step 4 of 6", "dense: step 6 of 6"]
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_lines_print_what_is_there_and_a_dash_for_what_is_not():
    runs = [
        run("dense", "dense", 40.0), run("geta", "s35", 60.0), run("geta", "s35", 62.0, seed=1),
        run("magnitude_bytes", "s35", 1.0, part="speed", tokens_per_second={"torch": 12.4, "openvino": 99.6}),
        replace(run("slicegpt_bytes", "s35", 0.0), figures={"out_of_reach": "one channel is too dear"}),
    ]  # fmt: skip
    lines = {(line[0], line[1], line[2]): line[3:] for line in lm_cells.lines_of(runs)}
    assert len(lines) == 1 + 3 * 7
    assert lines["", "dense float32", ""] == ["2.50 M", "1.23 MB", "50.0", "40.0", "-", "-", "-"]
    assert lines["35 %", "GETA, 4 bits", ""][2:4] == ["50.0 ± 0.0 (2)", "61.0 ± 1.4 (2)"]
    assert lines["35 %", "one-shot magnitude, 8 bits", "bytes"] == ["-"] * 4 + ["12", "-", "100"]
    assert lines["35 %", "SliceGPT's cut, 8 bits", "bytes"] == ["out of reach"] + ["-"] * 6
    assert lines["20 %", "GETA, 4 bits", ""] == ["-"] * 7
    assert all(len(line) == len(lm_cells.HEAD) for line in lm_cells.lines_of(runs))


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (70.0, "ahead of LLM-Pruner's cut (70.0), one-shot magnitude (90.0)"),
        (50.0, "ahead of one-shot magnitude (90.0), and behind LLM-Pruner's cut (50.0)"),
        (60.0, "ahead of one-shot magnitude (90.0), and behind LLM-Pruner's cut (60.0)"),
    ],
)
def test_remarks_say_who_is_ahead_also_where_it_is_the_other(theirs, words):
    runs = [run("geta", "s20", 60.0), run("llm_pruner_bytes", "s20", theirs), run("magnitude_bytes", "s20", 90.0)]
    said = lm_cells.remarks(runs)
    assert said[0] == f"20 % of the groups, equal in bytes: GETA's 60.0 is {words}."
    assert said[1] == "20 %: heads left in each layer [8, 3]."
    assert lm_cells.remarks([run("dense", "dense", 1.0)]) == []


def test_runs_that_were_asked_otherwise_are_not_shown_and_again_forgets_a_row(tmp_path):
    file = tmp_path / "lm.jsonl"
    for one in (run("geta", "s20", 60.0), replace(run("geta", "s35", 60.0), fingerprint="of other settings"), run("dense", "dense", 1.0)):
        keep_run(file, one)
    bench = lm_table.LmBench(tmp_path, file)
    assert {(one.row, one.column) for one in bench.runs()} == {("geta", "s20"), ("dense", "dense")}
    lm_table.forget(file, ["geta"])
    assert [one.row for one in read_runs(file)] == ["dense"]


def test_kept_runs_of_another_text_are_refused_before_anything_is_made(tmp_path):
    file = tmp_path / "lm.jsonl"
    mine = replace(run("dense", "dense", 1.0, text="of another Python"), fingerprint=lm_run.settings("dense", "dense", "smoke"))
    keep_run(file, mine)
    with pytest.raises(InputError, match=r"(?s)the kept runs read another text.*--results FILE"):
        lm_table.LmBench(tmp_path / "made", file, "smoke", workers=1).make()
    assert not (tmp_path / "made").exists()


def test_cuts_wait_for_getas_run_and_take_their_size_from_it(tmp_path, monkeypatch):
    asked: list[dict[str, object]] = []

    def made(**arguments: object) -> dict[str, object]:
        asked.append(arguments)
        return run("geta", "s35", 1.0, size_bytes=700.9).figures

    monkeypatch.setattr(lm_table, "lm_run", made)
    monkeypatch.setattr(lm_table, "trained_dense", lambda *_, **__: None)
    bench = lm_table.LmBench(tmp_path, tmp_path / "lm.jsonl", "smoke", ("s35",), workers=1)
    bench.make(speeds=False)
    sizes = {one["row"]: one.get("parameters") for one in asked}
    assert sizes["geta"] is None
    assert {sizes[row] for row in sizes if row.endswith("_bytes")} == {700}
    assert {sizes[row] for row in sizes if row.endswith("_same")} == {2_500_000}
    before = len(asked)
    bench.make(speeds=False)
    assert len(asked) == before, "nothing is made twice"


def test_the_table_goes_between_the_marks_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    begin, end = lm_table.MARKS
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    lm_table.write_page(page, "new \\1\n")
    assert page.read_text() == f"before\n{begin}\nnew \\1\n{end}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(InputError, match="no place for the table"):
        lm_table.write_page(page, "new")


def test_the_page_shows_the_runs_that_are_kept(root):
    bench = lm_table.LmBench(root, root / lm_table.RESULTS)
    begin, end = lm_table.MARKS
    shown = (root / lm_table.PAGE).read_text().split(begin)[1].split(end)[0]
    assert shown.strip() == lm_cells.markdown(bench.runs()).strip()


def test_rates_are_tried_on_validation_text_alone(tmp_path, monkeypatch, capsys):
    seen: list[object] = []
    judge, whole = lm_run.judge, lm_task.read_text(SMOKE)
    monkeypatch.setattr(lm_run, "judge", lambda net, rows: seen.append(rows) or judge(net, rows))
    monkeypatch.setattr(lm_rates, "TRIED", ("dense", "geta"))
    lm_rates.main(["--smoke", "--workers", "1", "--output", str(tmp_path), "--rates", "1e-3", "1e-2"])
    assert len(seen) == 2 * 2 * len(lm_rates.TRIED) and all(rows is whole.validation for rows in seen)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 + len(lm_rates.TRIED) + 1 and said[0].endswith("0.001 | 0.01 |")
    assert len({cell for line in said[2:-1] for cell in line.split("|")[2:-1]}) == 2 * len(lm_rates.TRIED), "each row and rate has its own"
