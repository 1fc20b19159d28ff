"""Several processes that hold copies: under torchrun all ranks end with the same bytes, near those of one process; refusals by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import geta_nb as gt
from geta_nb.errors import ConfigError
from tests.qasso import ddp_worker
from tests.qasso.nets import COLLAPSES
from tests.small_nets import ROWS

WORKER = Path(__file__).with_name("ddp_worker.py")
OPTIONS: dict[str, Any] = {"budget": gt.Budget(0.5), "schedule": gt.Schedule(0, 1, 1, 4, 2)}
# The ranks add the same products of float64 in another order: a gradient of some 1000 terms differs by 1000 * 1e-16 of its size, momentum
# adds up ten of these, and 26 steps each other's, times a learning rate of 0.05 at most: 1.3e-12. (Measured: 2e-16 to 1e-14.)
RTOL = 2e-12


def torchrun(ranks: int, folder: Path, cases: list[dict[str, Any]]) -> None:
    root = WORKER.parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [*command, str(WORKER), str(folder), json.dumps(cases)], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check(ranks: int, folder: Path, cases: list[dict[str, Any]]) -> None:
    torchrun(ranks, folder, cases)
    (folder / "one").mkdir()
    ddp_worker.main(folder / "one", [{key: value for key, value in case.items() if key != "save_at"} for case in cases])
    for number, case in enumerate(cases):
        results = [json.loads((folder / f"case{number}.rank{rank}.json").read_text()) for rank in range(ranks)]
        alone = json.loads((folder / "one" / f"case{number}.rank0.json").read_text())
        for result in results:
            own = result.pop("own_scores")
            assert own != result["shared_scores"] or "rules" in case  # the paper's scores come from gradients, which are the same already
            assert result == results[0], case
            assert result["progress"]["stage"] == "cool-down" and result["k"] in (None, sum(not alive for alive in result["alive"]))
            assert result.get("resumed_alike", True) and ("resumed_alike" in result) == ("save_at" in case)
        for key in ("alive", "bits", "groups", "k", "relative_bops"):
            assert results[0][key] == alone[key], (case, key)
        assert results[0]["difference"] < 1e-12  # float64, sums of less than 1000 terms near 1 in another order
        mine, whole = (torch.load(path / f"case{number}.rank0.pt", weights_only=True) for path in (folder, folder / "one"))
        assert distance(whole, mine) < RTOL, case


def distance(left: dict[str, Any], right: dict[str, Any]) -> float:
    """The largest difference of two networks' tensors, each by the size of its tensor."""
    return max(float((right[name] - tensor).abs().max()) / max(float(tensor.abs().max()), 1e-3) for name, tensor in left.items())


@pytest.mark.slow
@pytest.mark.filterwarnings(COLLAPSES)
def test_two_ranks_are_one_process(tmp_path: Path) -> None:
    check(2, tmp_path, [{"save_at": 9}, {"optimizer": "adamw", "ddp": {"gradient_as_bucket_view": True}}, {"rules": "paper"}])


@pytest.mark.slow
@pytest.mark.filterwarnings(COLLAPSES)
def test_two_ranks_with_adapters_are_one_process(tmp_path: Path) -> None:
    """Products of adapted weights are added up while gradients are each rank's own."""
    pytest.importorskip("peft", reason="peft is not installed")
    check(2, tmp_path, [{"adapters": True, "save_at": 9}, {"adapters": True, "accumulate": 2, "optimizer": "adamw"}])


@pytest.mark.slow
@pytest.mark.filterwarnings(COLLAPSES)
def test_four_ranks_are_one_process(tmp_path: Path) -> None:
    check(4, tmp_path, [{"budget": {"relative_bops": 0.008}, "optimizer": "adamw"}, {"accumulate": 2, "ddp": {"static_graph": False}}])


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone: enough to wrap and to shard."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


@pytest.mark.usefixtures("group")
def test_a_wrapped_model_is_refused_with_the_line_that_works() -> None:
    for wrapper in (DistributedDataParallel, nn.DataParallel):
        with pytest.raises(ConfigError, match=rf"(?s)wrapped already.*try: .*{wrapper.__name__}\(geta\.model\)"):
            gt.GETA(wrapper(net()), ROWS)
    geta = gt.GETA(net(), ROWS)
    DistributedDataParallel(geta.model)(ROWS).sum().backward()
    geta.qasso(torch.optim.SGD, lr=0.1, **OPTIONS).step()


@pytest.mark.usefixtures("group")
def test_a_model_is_analysed_before_it_is_sharded_and_else_refused_before_anything_changes() -> None:
    model = sharded(net())
    names = list(model.state_dict())
    match = r"GETA: the model is sharded already.*at: +0\.weight.*expected: the whole.*DTensor.*try: .*GETA\(model, \.\.\.\); fully_shard"
    with pytest.raises(ConfigError, match="(?s)" + match):
        gt.GETA(model, ROWS)
    assert list(model.state_dict()) == names


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("late", [False, True], ids=["sharded first", "optimizer first"])
def test_a_model_sharded_before_or_after_its_optimizer_trains_to_the_end(late: bool) -> None:
    found = []
    for shards in (False, True):
        torch.manual_seed(0)
        geta = gt.GETA(net().double(), ROWS.double())
        if shards and not late:
            sharded(geta.model)
        optimizer = geta.qasso(torch.optim.SGD, lr=0.1, **OPTIONS)
        if shards and late:
            sharded(geta.model)
        for _ in range(8):
            optimizer.zero_grad()
            geta.model(ROWS.double()).square().mean().backward()
            optimizer.step()
        assert int((~optimizer.group_mask).sum()) == optimizer.n_redundant == 4 and geta.group_sparsity() == 0.5
        tensors = [p.detach().full_tensor() if shards and hasattr(p, "placements") else p.detach() for p in geta.model.parameters()]
        assert any(hasattr(p, "placements") for p in geta.model.parameters()) == shards
        found.append((optimizer.group_mask.tolist(), geta.bit_widths(), tensors))
    (mask, bits, whole), (other_mask, other_bits, shares) = found
    assert mask == other_mask and bits == other_bits
    # one rank adds up nothing in another order
    assert all(torch.equal(a, b) for a, b in zip(whole, shares, strict=True))


@pytest.mark.usefixtures("group")
def test_a_model_made_tensor_parallel_after_its_optimizer_is_refused_at_the_first_step() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    geta = gt.GETA(net(), ROWS, quantize=None)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.1, **OPTIONS)
    parallelize_module(geta.model, init_device_mesh("cpu", (1,)), {"0": ColwiseParallel()})
    with pytest.raises(ConfigError, match=r"(?s)QASSO\.step: tensor parallelism.*not supported.*at: +0\.weight.*try: .*fully_shard"):
        optimizer.step()
    assert optimizer.steps_done == 0


def test_a_model_whose_parameters_were_replaced_is_refused_at_the_first_step() -> None:
    geta = gt.GETA(net(), ROWS)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.1, **OPTIONS)
    geta.model.load_state_dict({name: value.clone() for name, value in geta.model.state_dict().items()}, assign=True)
    geta.model(ROWS).sum().backward()
    with pytest.raises(ConfigError, match=r"(?s)other parameters than when.*at: +0\.weight.*try: .*geta\.qasso"):
        optimizer.step()
    again = geta.qasso(torch.optim.SGD, lr=0.1, **OPTIONS)
    again.step()
    assert again.steps_done == 1
