"""Runs killed with SIGKILL, in real processes: whatever they were doing, going on from the last checkpoint ends in the same bytes."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import CheckpointError, ConfigError
from geta_nb.files import checkpoint
from tests.qasso.resume_worker import NAME, SCHEDULE, TOTAL, Net, Run
from tests.small_nets import IMAGES, cnn, train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are POSIX's")
WORKER = Path(__file__).with_name("resume_worker.py")
VARIANTS: list[dict[str, Any]] = [{}, {"rules": "paper"}, {"target": True}, {"route": "state dicts"}]


def environment() -> dict[str, str]:
    root = WORKER.parents[2]
    return os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


TWO = [{"at": 9, "where": "in step"}, {"at": 13, "where": "half written"}]


def everywhere() -> list[dict[str, Any]]:
    """Every step, every place in turn; steps 3, 4, 5, 7 and 7, 10, 13 end periods of the two stages, 2, 5 and 13 begin stages."""
    places = ["in step", "after step", "half written", "before rename"]
    killed: list[dict[str, Any]] = [{"at": at, "where": places[at % 4]} for at in range(1, TOTAL + 1)]
    for i, variant in enumerate(VARIANTS[1:]):
        own = places[:2] if "route" in variant else places
        killed += [{"at": at, "where": own[(at + i) % len(own)], **variant} for at in (5, 10, 12, 14)]
    return killed + [{"at": at, "where": "in step", "every": 4} for at in (7, 12, 15)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What became of all runs: undisturbed ones first, one of each variant; then those of ``TWO``; then those killed everywhere."""
    plan = tmp_path_factory.mktemp("served") / "plan.json"
    plan.write_text(json.dumps([*VARIANTS, *TWO, *everywhere()]))
    command = [sys.executable, str(WORKER), "serve", str(plan)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(plan.with_suffix(".results").read_text())


def check(results: list[dict[str, Any]], undisturbed: int) -> None:
    """Each killed case died by SIGKILL, began again where its checkpoint stood, and ended as the first of its variant did."""
    wholes = {json.dumps(_variant(r["case"])): r["digest"] for r in results[:undisturbed]}
    assert len(wholes) == len(set(wholes.values())) or any("route" in r["case"] for r in results[:undisturbed])
    for result in results[undisturbed:]:
        case = result["case"]
        assert result["ends"] == [signal.SIGKILL, 0], case
        saved = (case["at"] - 1) // case.get("every", 1) * case.get("every", 1)
        assert result["started"] == [0, saved], case
        assert result["digest"] == wholes[json.dumps(_variant(case))], case


def _variant(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("rules", "target", "route") if key in case}


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_bytes(served: list[dict[str, Any]]) -> None:
    first = len(VARIANTS)
    killed = served[first : first + len(TWO)]
    assert [result["case"] for result in killed] == TWO
    check([served[0], *killed], 1)


@pytest.mark.slow
def test_a_run_killed_at_any_step_goes_on_with_the_same_bytes(served: list[dict[str, Any]]) -> None:
    whole, killed = served[: len(VARIANTS)], served[len(VARIANTS) + len(TWO) :]
    assert [result["case"] for result in whole] == VARIANTS and [result["case"] for result in killed] == everywhere()
    check([*whole, *killed], len(VARIANTS))


@pytest.mark.slow
def test_a_run_killed_from_outside_again_and_again_ends_with_the_same_bytes(served: list[dict[str, Any]], tmp_path: Path) -> None:
    for kill in range(4):
        process = subprocess.Popen([sys.executable, str(WORKER), "run", str(tmp_path), "{}"], env=environment(), stderr=subprocess.PIPE)
        marker = tmp_path / f"started.{process.pid}"
        while not marker.exists() and process.poll() is None:
            time.sleep(0.002)
        if kill < 3:
            time.sleep(0.03 * (kill + 1))  # wherever it is by then
            process.kill()
        _, errors = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    assert served[0]["case"] == {} and (tmp_path / "digest").read_text() == served[0]["digest"]


def test_a_scheduler_built_anew_does_not_change_the_learning_rates_of_a_resumed_run(tmp_path: Path) -> None:
    schedulers = {
        "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
        "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
        "restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
        "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 20),
        "chain": lambda o: torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.LinearLR(o), torch.optim.lr_scheduler.CosineAnnealingLR(o, 9)], [3]
        ),
    }
    options: dict[str, Any] = {"lr": 1e-2, "budget": gt.Budget(0.25), "schedule": SCHEDULE}
    for name, build in schedulers.items():
        geta = gt.GETA(cnn(), IMAGES)
        optimizer = geta.qasso(torch.optim.AdamW, **options)
        scheduler, arguments = build(optimizer), [1.0] if name == "plateau" else []
        for step in range(7):
            train(geta.model, optimizer, [step])
            scheduler.step(*arguments)
        geta.save_checkpoint(tmp_path / name, scheduler=scheduler, scaler=torch.amp.GradScaler("cpu", init_scale=2.0), epoch=3)
        other = gt.GETA.resume(tmp_path / name, cnn(), IMAGES)
        again = other.qasso(torch.optim.AdamW, **options)
        twin, scaler = build(again), torch.amp.GradScaler("cpu")
        assert other.restore(scheduler=twin, scaler=scaler)["epoch"] == 3 and scaler.get_scale() == 2.0
        for step in range(7, 12):
            assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimizer.param_groups], name
            for own, net, lr in ((optimizer, geta.model, scheduler), (again, other.model, twin)):
                train(net, own, [step])
                lr.step(*arguments)
        mine, theirs = geta.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine), name


def test_what_was_not_saved_cannot_be_restored_and_says_so(tmp_path: Path) -> None:
    geta = gt.GETA(cnn(), IMAGES)
    with pytest.raises(CheckpointError, match="was not resumed"):
        geta.restore()
    geta.save_checkpoint(tmp_path / "a", epoch=1)
    other = gt.GETA.resume(tmp_path / "a", cnn(), IMAGES)
    with pytest.raises(CheckpointError, match=r"(?s)nothing was saved.*at: +scheduler.*expected: one of epoch"):
        other.restore(scheduler=torch.optim.lr_scheduler.StepLR(torch.optim.SGD(cnn().parameters()), 1))
    with pytest.raises(ConfigError, match=r"(?s)no state to load.*at: +epoch.*got: +int"):
        other.restore(epoch=1)
    assert other.restore() == {"epoch": 1}
    with pytest.raises(CheckpointError, match=r"(?s)cannot hold.*got: +object"):
        geta.save_checkpoint(tmp_path / "a", thing=object())
    assert gt.GETA.resume(tmp_path / "a", cnn(), IMAGES).restore() == {"epoch": 1}


def test_the_random_numbers_of_another_rank_stay_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gt.GETA(cnn(), IMAGES).save_checkpoint(tmp_path / "a")
    expected = torch.rand(1)
    gt.GETA.resume(tmp_path / "a", cnn(), IMAGES).restore()
    assert torch.equal(torch.rand(1), expected)
    monkeypatch.setattr("geta_nb.files.random_state._rank", lambda: 1)
    torch.manual_seed(5)
    gt.GETA.resume(tmp_path / "a", cnn(), IMAGES).restore()
    assert not torch.equal(torch.rand(1), expected)


def test_part_files_of_killed_writers_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".a.1.part", ".a.2.part", ".b.3.part"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * checkpoint.STALE
    os.utime(old, (long_ago, long_ago))
    os.utime(other, (long_ago, long_ago))
    checkpoint.write(tmp_path / "a", {"x": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.2.part", ".b.3.part", "a"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"optimizer": torch.optim.SGD, "lr": 0.1}, r"at: +optimizer\s+expected: SGD\s+got: +AdamW"),
        ({"rules": "paper"}, r"at: +rules\.saliency\s+expected: paper\s+got: +fisher"),
        ({"schedule": gt.Schedule(2, 5, 4, 8, 2, 2, joint_start=5)}, r"at: +schedule\.joint_periods\s+expected: 2\s+got: +3"),
    ],
)
def test_another_run_is_refused_by_what_differs(change: dict[str, Any], match: str) -> None:
    options: dict[str, Any] = {"optimizer": torch.optim.AdamW, "lr": 1e-2, "budget": gt.Budget(0.25), "schedule": SCHEDULE}
    state = gt.GETA(cnn(), IMAGES).qasso(**options).state_dict()
    other = gt.GETA(cnn(), IMAGES).qasso(**(options | change))
    with pytest.raises(CheckpointError, match=rf"(?s)saved by another run.*{match}"):
        other.load_state_dict(state)
    assert other.steps_done == 0


def test_a_state_of_another_version_or_of_other_parameter_groups_is_refused() -> None:
    options: dict[str, Any] = {"budget": gt.Budget(0.25), "schedule": SCHEDULE}
    geta = gt.GETA(cnn(), IMAGES, quantize=None)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.1, **options)
    state = optimizer.state_dict()
    with pytest.raises(CheckpointError, match=r"(?s)format 4.*got: +format 1"):
        optimizer.load_state_dict({**state, "qasso": {**state["qasso"], "format": 1}})
    weights = list(geta.model.parameters())
    split = geta.qasso(torch.optim.SGD([{"params": weights[:2]}, {"params": weights[2:]}], lr=0.1), **options)
    with pytest.raises(CheckpointError, match=r"(?s)saved by another run.*param_groups"):
        split.load_state_dict(state)


DAMAGES: dict[str, Any] = {
    "alive": lambda own: own.pop("alive"),
    "redundant": lambda own: own.update(redundant=own["redundant"][:3]),
    "average": lambda own: own.update(average=None),
    "step": lambda own: own.update(step="3"),
    "lower_bits": lambda own: own.update(lower_bits=[4]),
    "frozen_bits": lambda own: own.pop("frozen_bits"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_refused_before_anything_is_loaded(name: str) -> None:
    geta = gt.GETA(cnn(), IMAGES)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.1, momentum=0.9, budget=gt.Budget(0.25), schedule=SCHEDULE)
    train(geta.model, optimizer, range(3))
    state = copy.deepcopy(optimizer.state_dict())
    DAMAGES[name](state["qasso"])
    train(geta.model, optimizer, range(3, 6))
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(CheckpointError, match=rf"(?s)damaged state.*at: +qasso\.{name}"):
        optimizer.load_state_dict(state)
    assert str(optimizer.state_dict()) == str(before)


def test_what_is_no_state_at_all_is_refused() -> None:
    optimizer = gt.GETA(cnn(), IMAGES).qasso(torch.optim.SGD, lr=0.1, budget=gt.Budget(0.25), schedule=SCHEDULE)
    with pytest.raises(CheckpointError, match="not a state of this optimizer"):
        optimizer.load_state_dict(None)  # type: ignore[arg-type]
    state = optimizer.state_dict()
    del state["param_groups"]
    with pytest.raises(CheckpointError, match=r"(?s)param_groups"):
        optimizer.load_state_dict(state)


def test_the_worker_draws_from_every_generator(tmp_path: Path) -> None:
    """Else its digests would prove less than they say."""
    run = Run(tmp_path, {})
    digests = []
    for _ in range(2):
        run.step()
        run.save()
        digests.append(run.digest())
    assert digests[0] != digests[1] and (tmp_path / NAME).exists() and isinstance(run.geta.model, Net)
