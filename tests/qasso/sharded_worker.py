"""One rank of a sharded run, or the whole run in one process: the same lines. Run by tests/qasso/test_sharded.py.

The ranks meet in a folder, and each writes what it found there.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

import geta_nb as gt
from geta_nb.quantizers.parametrized import parameter_tensors
from tests.qasso.sharded_nets import BATCH, NETS, Net

SCHEDULE = gt.Schedule(2, 8, 3, 12, 3, 3, joint_start=6)
TOTAL = 24
OPTIMIZERS: dict[str, Callable[..., gt.QASSO]] = {
    "sgd": lambda geta, **o: geta.qasso(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3, **o),
    # dividing by a root of squares near zero would make last digits large: eps bounds that
    "adamw": lambda geta, **o: geta.qasso(torch.optim.AdamW, lr=1e-2, eps=0.1, weight_decay=0.1, **o),
}
Case = dict[str, Any]


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def mesh(case: Case) -> DeviceMesh:
    """All ranks in a row, or (HSDP) copies of rows."""
    if case.get("hsdp"):
        return init_device_mesh("cpu", (2, world() // 2), mesh_dim_names=("copies", "shards"))
    return init_device_mesh("cpu", (world(),))


def shard(net: Net, model: nn.Module, case: Case, **options: Any) -> None:
    """As people write it: each block, then the whole; nothing in a single process."""
    if world() == 1:
        return
    where = mesh(case)
    for part in (*net.parts(model), model):
        fully_shard(part, mesh=where, **case.get("shard", {}), **options)


def start(case: Case) -> tuple[gt.GETA, Net]:
    """A model, calibrated on another batch than is trained on: else the largest input lies on the clip value to the last digit."""
    net = NETS[case["net"]]
    # 8 bits to begin with: a step size of 16 bits reads values / d up to 32767, and what it learns from their last digits is chance
    config = gt.QuantConfig(activations=case.get("activations", True), initial_bits=8, granularity=case.get("granularity", "tensor"))
    geta = gt.GETA(net.make(), net.batch(0)[0][:2], quantize=config)
    if config.activations:
        geta.calibrate([net.batch(-1)[0]])
    return geta, net


def optimizer_of(geta: gt.GETA, case: Case) -> gt.QASSO:
    budget = gt.Budget(**case.get("budget", {"group_sparsity": 0.5}), bit_range=(4, 8), activation_bit_range=(6, 8))
    return OPTIMIZERS[case.get("optimizer", "sgd")](geta, budget=budget, schedule=SCHEDULE, rules=case.get("rules", "default"))


def backward(geta: gt.GETA, net: Net, step: int, accumulate: int = 1) -> None:
    """This rank's share of a global batch, in parts of which only the last one's gradients are reduced."""
    (x, labels), share = net.batch(step), BATCH // world() // accumulate
    for part in range(accumulate):
        mine = slice((rank() * accumulate + part) * share, (rank() * accumulate + part + 1) * share)
        if accumulate > 1 and world() > 1:
            geta.model.set_requires_gradient_sync(part == accumulate - 1)  # type: ignore[operator]
        (net.loss(geta.model, x[mine], labels[mine]) / accumulate).backward()


def clip(model: nn.Module, most: float) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), most)


def train(case: Case, steps: int = TOTAL) -> tuple[gt.GETA, gt.QASSO, Net]:
    """As people write it; nothing in it but the lines of ``fully_shard`` knows how many ranks there are."""
    geta, net = start(case)
    late = case.get("late")  # trainers build the optimizer first
    if not late:
        shard(net, geta.model, case)
    optimizer = optimizer_of(geta, case)
    if late:
        shard(net, geta.model, case)
    while optimizer.steps_done < steps:
        optimizer.zero_grad()
        backward(geta, net, optimizer.steps_done, case.get("accumulate", 1))
        if "clip" in case:
            clip(geta.model, case["clip"])
        optimizer.step()
        if rank() == 0 and optimizer.steps_done % 5 == 0:  # a live view asks where it runs, and the others do not know of it
            optimizer.progress()
            optimizer.saliency()
    return geta, optimizer, net


def whole(tensor: Tensor) -> Tensor:
    """A tensor as one process has it; all ranks must ask."""
    found = tensor.detach()
    return (found.full_tensor() if hasattr(found, "full_tensor") else found).clone()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Everything that is trained, and buffers, which fade with the groups."""
    found = {name: whole(tensor) for name, tensor in parameter_tensors(model).items()}
    found |= {name: whole(tensor) for name, tensor in model.named_parameters()}
    return found | {name: tensor.clone() for name, tensor in model.named_buffers() if tensor.is_floating_point()}


def digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def result_of(geta: gt.GETA, optimizer: gt.QASSO) -> Case:
    """What this rank ended with, as plain values."""
    own = {name: p for name, p in geta.model.named_parameters() if not hasattr(p, "placements")}
    optimizer.pruner.average += rank()  # as if each rank had seen other gradients
    return {
        "digest": digest(tensors_of(geta.model)), "own": digest({n: p.detach() for n, p in own.items()}) if world() > 1 else "",
        "alive": optimizer.group_mask.tolist(), "bits": [geta.bit_widths(), geta.activation_bit_widths()],
        "groups": hashlib.sha256(repr([group.slices for group in geta.groups]).encode()).hexdigest(), "k": optimizer.n_redundant,
        "zero": geta.group_sparsity(), "stage": optimizer.stage, "plan": None if optimizer.plan is None else optimizer.plan.to_dict(),
        "shared_scores": optimizer.pruner._scores().tolist(),
    }  # fmt: skip


def alive_of(geta: gt.GETA) -> list[bool]:
    """Which groups are not exactly zero, read from whole tensors; all ranks must ask."""
    tensors = tensors_of(geta.model)
    alive = torch.zeros(len(geta.groups), dtype=torch.bool)
    for entry in geta._analysis.table.axis_maps:
        if entry.producing:
            slices = tensors[entry.parameter].movedim(entry.axis, 0).reshape(len(entry.group_of_index), -1)
            owners = torch.as_tensor(entry.group_of_index)[(slices != 0).any(1)]
            alive[owners[owners >= 0]] = True
    return alive.tolist()


def laws(folder: Path, cases: list[Case]) -> None:
    """Train each case and write how this rank ended it, with the weights themselves."""
    for number, case in enumerate(cases):
        geta, optimizer, _ = train(case)
        tensors = tensors_of(geta.model)
        (folder / f"case{number}.rank{rank()}.json").write_text(json.dumps(result_of(geta, optimizer)))
        if rank() == 0:
            torch.save(tensors, folder / f"case{number}.pt")


def checks(folder: Path, names: list[str]) -> None:
    """Ask what is in tests/qasso/sharded_checks.py, and write what this rank found."""
    from tests.qasso.sharded_checks import run

    (folder / f"checks.rank{rank()}.json").write_text(json.dumps(run(names)))


def killed(_: Path) -> None:
    """Train until a rank is killed."""
    from tests.qasso.sharded_checks import killed

    killed()


TASKS: dict[str, Callable[..., None]] = {"laws": laws, "checks": checks, "killed": killed}


def begin(folder: Path, task: str, arguments: Sequence[Any], number: int, count: int, timeout: float, words: Path) -> None:
    """Be rank ``number`` of ``count``: a process of its own, which says in the file ``words`` why it ended badly."""
    with words.open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(count)}  # torch's meshes ask there
    store, patience = f"file://{folder}/{task}.store", timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=store, rank=number, world_size=count, timeout=patience)
    TASKS[task](folder, *arguments)
    with suppress(Exception):
        dist.destroy_process_group()
