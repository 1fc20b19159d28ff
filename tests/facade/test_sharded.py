"""A sharded model from one end to the other: checkpoints read by other numbers of ranks, subnets on rank 0, the meta device, the recipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import CheckpointError
from tests.facade import sharded_worker

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(sharded_worker.__file__)
RECIPE = re.compile(r'^```python title="sharded.py"\n(.*?)^```', re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.filterwarnings("ignore:QASSO. a layer collapses:geta_nb.errors.CollapseWarning")
# float64: ranks add up the same products in another order, and 26 steps each other's (tests/qasso/test_distributed.py)
RTOL = 2e-12


def torchrun(ranks: int, folder: Path, *command: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *command]
    done = subprocess.run(run, env=environment, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def results(folder: Path, job: str, ranks: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{job}.rank{rank}.json").read_text()) for rank in range(ranks)]


def weights(folder: Path, job: str, rank: int = 0) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / f"{job}.rank{rank}.pt", weights_only=True)
    return found


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((right[name] - tensor).abs().max()) / max(float(tensor.abs().max()), 1e-3) for name, tensor in left.items())


@pytest.mark.slow
def test_a_sharded_run_is_that_of_one_process_is_saved_and_goes_on_on_other_numbers_of_ranks(tmp_path: Path) -> None:
    torchrun(2, tmp_path, str(WORKER), str(tmp_path), "straight", "materialised", "accelerate", "trainer")
    (tmp_path / "alone").mkdir()
    sharded_worker.main(tmp_path / "alone", ["straight"])
    first, second = results(tmp_path, "straight", 2)
    (alone,) = results(tmp_path / "alone", "straight", 1)
    for key in ("alive", "bits", "sparsity", "order", "as_before", "no_gradients", "trains_on", "masked"):
        assert first[key] == second[key] == alone[key], key
    assert alone["as_before"] and alone["no_gradients"] and alone["trains_on"]
    for how in ("measured", "gradient"):
        assert first["rises"][how] == second["rises"][how]
        assert first["rises"][how] == pytest.approx(alone["rises"][how], rel=1e-6, abs=1e-12), how
    assert first["relative_bops"] == alone["relative_bops"] <= 0.02 and first["difference"] < 1e-12
    assert "rank 0 has the subnet" in second["elsewhere"] and "distributed.checkpoint.save" in first["one_file"]
    assert not (tmp_path / "one_file").exists()
    x = sharded_worker.batch(70)[0]
    small, other = (gt.load(folder / "small.safetensors")(x).detach() for folder in (tmp_path, tmp_path / "alone"))
    torch.testing.assert_close(small, other, rtol=1e-10, atol=1e-12)
    assert weights(tmp_path, "straight").keys() and distance(weights(tmp_path / "alone", "straight"), weights(tmp_path, "straight")) < RTOL
    for result in results(tmp_path, "materialised", 2):
        assert result["alike"] and result["started"] and "to_empty" in result["meta"] and "head.bias" in result["missing"]
        assert sum(not alive for alive in result["alive"]) == round(result["sparsity"] * len(result["alive"]))
    assert [result["kind"] for result in results(tmp_path, "materialised", 2)] == ["Net", "Elsewhere"]
    prepared = results(tmp_path, "accelerate", 2)
    assert [result.pop("rows") for result in prepared] == [2, 1]
    assert prepared[0] == prepared[1] and prepared[0]["sharded"] and prepared[0]["same"]
    trained, other = results(tmp_path, "trainer", 2)
    assert trained.pop("generated") == [1, 8] and trained == other and trained["sharded"]
    assert abs(trained["sparsity"] - 0.4) < 0.02 and set(trained["bits"].values()) == {4}
    for ranks in (4, 1):
        torchrun(ranks, tmp_path, str(WORKER), str(tmp_path), "resumed")
        for rank, result in enumerate(results(tmp_path, "resumed", ranks)):
            assert result["from"] == sharded_worker.SAVED
            assert all(result[key] == first[key] for key in ("alive", "bits", "sparsity")), (ranks, rank)
            assert distance(weights(tmp_path, "straight"), weights(tmp_path, "resumed", rank)) < RTOL, (ranks, rank)


@pytest.mark.slow
def test_the_recipe_runs_as_it_stands_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    found = RECIPE.findall((ROOT / "docs" / "train_anywhere.md").read_text())
    assert len(found) == 1
    (tmp_path / "sharded.py").write_text(found[0])
    torchrun(2, tmp_path, "sharded.py")
    first = (tmp_path / "small.safetensors").read_bytes()
    (tmp_path / "small.safetensors").unlink()
    torchrun(2, tmp_path, "sharded.py")
    assert (tmp_path / "small.safetensors").read_bytes() == first


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_a_model_from_the_meta_device_gets_the_ranges_of_its_weights() -> None:
    x = torch.randn(4, 6)
    with torch.device("meta"):
        empty = net()
    geta = gt.GETA(empty, torch.empty(4, 6, device="meta"))
    geta.model.to_empty(device="cpu")
    assert all(bool(q.clip_max.isnan()) for q in geta.quantizers.weights.values())
    geta.load_weights(net().state_dict())
    assert torch.equal(geta.model(x), gt.GETA(net(), x).model(x))
    with torch.no_grad():
        geta.model[0].parametrizations.weight.original.mul_(2)
    geta.quantizers.weights["0"].forget_range()
    geta.qasso(torch.optim.SGD, lr=0.1, budget=gt.Budget(0.5), schedule=gt.Schedule(0, 1, 1, 4, 2))
    twice = net()
    with torch.no_grad():
        twice[0].weight.mul_(2)
    assert torch.equal(geta.model(x), gt.GETA(twice, x).model(x))


@pytest.mark.parametrize("change", [{"0.weight": torch.zeros(2, 2)}, {"other": torch.zeros(1)}, {"1.running_mean": None}])
def test_weights_of_another_network_are_refused_and_nothing_changes(change: dict[str, torch.Tensor | None]) -> None:
    geta = gt.GETA(net(), torch.randn(2, 6))
    before = {name: value.clone() for name, value in geta.model.state_dict().items()}
    state = {name: value for name, value in (net().state_dict() | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=rf"(?s)load_weights: not a state dict of this network.*at: +{next(iter(change))}"):
        geta.load_weights(state)
    assert all(torch.equal(before[name], value) for name, value in geta.model.state_dict().items())


def test_the_state_of_another_network_or_budget_is_refused_and_nothing_changes() -> None:
    x, options = torch.randn(4, 6), {"lr": 0.1, "schedule": gt.Schedule(0, 1, 1, 4, 2)}
    geta = gt.GETA(net(), x)
    geta.qasso(torch.optim.SGD, budget=gt.Budget(0.5), **options)
    state = geta.state_dict()
    other = gt.GETA(net(), x, protect=("0",))
    with pytest.raises(CheckpointError, match=r"(?s)another network.*protect"):
        other.load_state_dict(state)
    again = gt.GETA(net(), x)
    optimizer = again.qasso(torch.optim.SGD, budget=gt.Budget(0.25), **options)
    with pytest.raises(CheckpointError, match=r"(?s)saved by another run.*budget"):
        again.load_state_dict(state)
    with pytest.raises(CheckpointError, match="not the state of a run"):
        again.load_state_dict({"model": {}})
    again.model(x).sum().backward()
    optimizer.step()
    assert optimizer.steps_done == 1
