"""Checkpoints: a run that was killed and resumed gives the same weights, bit for bit; a file that does not fit changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import CheckpointError
from geta_nb.files import checkpoint
from tests.small_nets import IMAGES, Residual, assert_same, assert_unchanged, cnn, evaluate, snapshot, train

OPTIONS: dict[str, Any] = {
    "budget": gt.Budget(group_sparsity=0.5, bit_range=(4, 8), activation_bit_range=(6, 8)),
    "schedule": gt.Schedule(2, 4, 2, 8, 2),
    "lr": 1e-2,
}


def started(model: nn.Module | None = None) -> tuple[gt.GETA, gt.QASSO]:
    torch.manual_seed(0)
    geta = gt.GETA(model or cnn(), IMAGES, quantize=gt.QuantConfig(activations=True), protect=["3.bias"] if model is None else ())
    geta.calibrate([IMAGES])
    return geta, geta.qasso(torch.optim.AdamW, **OPTIONS)


@pytest.mark.parametrize("route", ["file", "state dicts"])
def test_a_resumed_run_is_the_run_that_was_not_killed(route: str, tmp_path: Path) -> None:
    geta, optimizer = started()
    train(geta.model, optimizer, range(9))  # inside the joint stage
    assert optimizer.stage == "joint"
    geta.save_checkpoint(tmp_path / "run.ckpt")
    state, own = copy.deepcopy((geta.model.state_dict(), optimizer.state_dict()))  # torch's own share their tensors
    train(geta.model, optimizer, range(9, 18))

    torch.manual_seed(1)  # other initial weights
    if route == "file":
        other = gt.GETA.resume(tmp_path / "run.ckpt", cnn(), IMAGES)
        resumed = other.qasso(torch.optim.AdamW, **OPTIONS)
    else:
        other = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True), protect=["3.bias"])
        other.model.load_state_dict(state)
        resumed = other.qasso(torch.optim.AdamW, **OPTIONS)
        resumed.load_state_dict(own)
    assert resumed.stage == "joint"
    train(other.model, resumed, range(9, 18))
    mine, theirs = geta.model.state_dict(), other.model.state_dict()
    assert list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (resumed.group_mask == optimizer.group_mask).all() and resumed.stage == "cool-down"


def test_a_checkpoint_that_knows_no_sign_has_signed_inputs(tmp_path: Path) -> None:
    geta, _ = started()
    geta.save_checkpoint(tmp_path / "run")
    state = checkpoint.read(tmp_path / "run")
    state["model"] = {name: value for name, value in state["model"].items() if not name.endswith("has_sign")}
    del state["quantize"]["signed"], state["quantize"]["granularity"], state["quantize"]["narrow_range"]
    checkpoint.write(tmp_path / "old", state)
    other = gt.GETA.resume(tmp_path / "old", cnn(), IMAGES)
    assert other.quantizers is not None and all(quantizer.signed for quantizer in other.quantizers.activations.values())
    assert all(q.narrow_range for q in (*other.quantizers.weights.values(), *other.quantizers.activations.values()))


def test_a_run_with_channels_and_unsigned_inputs_goes_on(tmp_path: Path) -> None:
    config = gt.QuantConfig(activations=True, granularity="channel")
    torch.manual_seed(0)
    geta = gt.GETA(cnn(), IMAGES, quantize=config)
    geta.calibrate([IMAGES])
    geta.save_checkpoint(tmp_path / "run")
    other = gt.GETA.resume(tmp_path / "run", cnn(), IMAGES)
    assert other.config == config and other.quantizers is not None
    assert [q.signed for q in other.quantizers.activations.values()] == [True, False, False]
    assert_same(evaluate(other.model, IMAGES), evaluate(geta.model, IMAGES))


def test_a_checkpoint_before_training_holds_the_model_and_its_options(tmp_path: Path) -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(initial_bits=8, skip=("8",)), protect="0")
    geta.save_checkpoint(tmp_path / "a")
    other = gt.GETA.resume(tmp_path / "a", cnn(), IMAGES)
    assert_same(evaluate(other.model, IMAGES), evaluate(geta.model, IMAGES))
    assert other.config == geta.config and other.protect == ("0",) and len(other.groups) == len(geta.groups) == 8
    other.qasso(torch.optim.SGD, lr=0.1, budget=gt.Budget(), schedule=gt.Schedule.for_steps(100))


def test_pruning_only_is_resumed_as_pruning_only(tmp_path: Path) -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=None)
    geta.mask([1])
    geta.save_checkpoint(tmp_path / "a")
    other = gt.GETA.resume(tmp_path / "a", cnn(), IMAGES)
    assert other.quantizers is None and other.group_sparsity() == 1 / 16


def test_saving_again_before_the_optimizer_is_built_keeps_its_state(tmp_path: Path) -> None:
    geta, optimizer = started()
    train(geta.model, optimizer, range(3))
    geta.save_checkpoint(tmp_path / "a")
    gt.GETA.resume(tmp_path / "a", cnn(), IMAGES).save_checkpoint(tmp_path / "b")
    resumed = gt.GETA.resume(tmp_path / "b", cnn(), IMAGES).qasso(torch.optim.AdamW, **OPTIONS)
    assert resumed.progress()["step"] == 3


def test_another_budget_is_refused(tmp_path: Path) -> None:
    geta, _ = started()
    geta.save_checkpoint(tmp_path / "a")
    other = gt.GETA.resume(tmp_path / "a", cnn(), IMAGES)
    with pytest.raises(CheckpointError, match=r"(?s)saved by another run.*at: +budget"):
        other.qasso(torch.optim.AdamW, **(OPTIONS | {"budget": gt.Budget(group_sparsity=0.3)}))
    assert other.qasso(torch.optim.AdamW, **OPTIONS).progress()["step"] == 0


@pytest.mark.parametrize("other", [lambda: cnn(10), Residual], ids=["other widths", "other layers"])
def test_another_model_is_refused_and_stays_as_it_was(other: Any, tmp_path: Path) -> None:
    geta, _ = started()
    geta.save_checkpoint(tmp_path / "a")
    model = other()
    before, outputs = snapshot(model), evaluate(model, IMAGES)
    with pytest.raises(CheckpointError, match="resume: a checkpoint of another model"):
        gt.GETA.resume(tmp_path / "a", model, IMAGES)
    assert_unchanged(model, before)
    assert_same(evaluate(model, IMAGES), outputs)


def test_a_damaged_file_is_refused_and_the_model_stays(tmp_path: Path) -> None:
    path, model = tmp_path / "a", cnn()
    gt.GETA(cnn(), IMAGES).save_checkpoint(path)
    before, whole = snapshot(model), path.read_bytes()
    middle = len(whole) - 40
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (whole[: len(whole) // 2], whole[:5], b"", flipped, b"{" * 500):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"(?s)resume: .*at: .*a"):
            gt.GETA.resume(path, model, IMAGES)
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        gt.GETA.resume(path, model, IMAGES)
    assert_unchanged(model, before)


def test_a_file_of_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    subnet = gt.GETA(cnn(), IMAGES).construct_subnet()
    gt.save(subnet, tmp_path / "net")
    with pytest.raises(CheckpointError, match=r"resume: (?s:.*)not a checkpoint|resume: (?s:.*)cannot be read"):
        checkpoint.read(tmp_path / "net")


def test_every_plain_value_goes_round(tmp_path: Path) -> None:
    state = {
        "none": None, "flag": True, "text": "d\u00e9", "number": 0.1, 3: {"pair": (1, [2.5, ()])},
        "tensors": [torch.tensor(1.5), torch.ones(2, 3).t(), torch.tensor([True]), torch.ones(2, dtype=torch.bfloat16), torch.zeros(0)],
    }  # fmt: skip
    checkpoint.write(tmp_path / "a", state)
    found = checkpoint.read(tmp_path / "a")
    assert {k: v for k, v in found.items() if k != "tensors"} == {k: v for k, v in state.items() if k != "tensors"}
    assert_same(found["tensors"], state["tensors"])
    assert [t.dtype for t in found["tensors"]] == [t.dtype for t in state["tensors"]]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    checkpoint.write(path, {"a": 1})
    with pytest.raises(CheckpointError, match=r"(?s)cannot hold.*got: +function"):
        checkpoint.write(path, {"a": [print, lambda: 0][1]})
    with pytest.raises(CheckpointError, match=r"(?s)cannot be written.*at: .*nowhere"):
        checkpoint.write(tmp_path / "nowhere" / "a", {"a": 1})
    assert checkpoint.read(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_was_read_does_not_hang_on_the_file(tmp_path: Path) -> None:
    """A run that resumed goes on when something writes over its file in place: mapped tensors would change, or end the process."""
    checkpoint.write(tmp_path / "a", {"tensor": torch.arange(4096.0)})
    found = checkpoint.read(tmp_path / "a")["tensor"]
    with open(tmp_path / "a", "r+b") as file:
        file.write(b"\0" * (tmp_path / "a").stat().st_size)
    assert torch.equal(found, torch.arange(4096.0))
