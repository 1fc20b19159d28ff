"""One rank of a run under ``torchrun``, or the whole run in one process: the same lines. Run by tests/qasso/test_distributed.py.

``ddp_worker.py FOLDER CASES`` trains on this rank's share of the same global batches and writes what this rank ended with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import geta_nb as gt
from geta_nb.quantizers.parametrized import parameter_tensors

SCHEDULE = gt.Schedule(2, 8, 3, 12, 3, 3, joint_start=6)
TOTAL, BATCH = 26, 8
OPTIMIZERS = {
    "sgd": lambda geta, **o: geta.qasso(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3, **o),
    # dividing by a root of squares near zero would make last digits large: eps bounds that
    "adamw": lambda geta, **o: geta.qasso(torch.optim.AdamW, lr=1e-2, eps=0.1, **o),
}


def network() -> nn.Module:
    """Without batch norm: its statistics are those of a rank's own share, in any distributed run."""
    torch.manual_seed(int(os.environ.get("RANK", "0")))  # DDP gives all ranks the weights of rank 0
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 12, 3, stride=2), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 4),
    ).double()  # fmt: skip


def global_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same on every rank; each takes its rows."""
    draw = torch.Generator().manual_seed(1000 + step)
    labels = torch.arange(BATCH) % 4
    x = 0.5 * torch.randn(BATCH, 3, 6, 6, dtype=torch.float64, generator=draw)
    x[torch.arange(BATCH), labels % 3] += labels.double()[:, None, None] / 2
    return x, labels


def with_adapters(net: nn.Module) -> Any:
    """LoRA on all layers, of which ``get_base_model()`` is the network itself."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(net, LoraConfig(r=4, target_modules=["0", "2", "6", "8"], init_lora_weights="gaussian"))


def train(case: dict[str, Any], path: Path, *, resume: bool = False) -> tuple[gt.GETA, gt.QASSO]:
    """As people write it; nothing in it but the lines of DDP knows how many ranks there are."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    example, net = global_batch(0)[0], network()
    adapted = with_adapters(net) if case.get("adapters") else None
    if resume:
        geta = gt.GETA.resume(path, net, example[:2])
    else:
        # 8 bits to begin with: a step size of 16 bits reads values / d up to 32767, and what it learns from their last digits is chance
        geta = gt.GETA(net, example[:2], quantize=gt.QuantConfig(activations=True, initial_bits=8))
        # another batch than is trained on: else the largest input lies on the clip value to the last digit, on this or on that side of it
        geta.calibrate([global_batch(-1)[0]])
    model = DistributedDataParallel(geta.model, **case.get("ddp", {})) if world > 1 else geta.model
    budget = gt.Budget(**case.get("budget", {"group_sparsity": 0.5}), bit_range=(4, 8), activation_bit_range=(6, 8))
    optimizer = OPTIMIZERS[case.get("optimizer", "sgd")](geta, budget=budget, schedule=SCHEDULE, rules=case.get("rules", "default"))
    accumulate = case.get("accumulate", 1)
    share = BATCH // world // accumulate
    while optimizer.steps_done < TOTAL:
        x, labels = global_batch(optimizer.steps_done)
        optimizer.zero_grad()
        for part in range(accumulate):
            rows = slice((rank * accumulate + part) * share, (rank * accumulate + part + 1) * share)
            with contextlib.nullcontext() if part == accumulate - 1 or world == 1 else model.no_sync():
                (F.cross_entropy(model(x[rows]), labels[rows]) / accumulate).backward()
        optimizer.step()
        if optimizer.steps_done == case.get("save_at") and rank == 0 and not resume:
            geta.save_checkpoint(path)
    if adapted is not None:
        adapted.merge_and_unload()
    return geta, optimizer


def result_of(geta: gt.GETA, optimizer: gt.QASSO, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What this rank ended with, as plain values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    report = geta.report(geta.construct_subnet()).to_dict()
    optimizer.pruner.average += int(os.environ.get("RANK", "0"))  # as if each rank had seen other gradients
    return {
        "digest": found.hexdigest(), "alive": optimizer.group_mask.tolist(), "bits": [geta.bit_widths(), geta.activation_bit_widths()],
        "groups": hashlib.sha256(repr([group.slices for group in geta.groups]).encode()).hexdigest(), "k": optimizer.n_redundant,
        "difference": report["max_abs_difference"], "relative_bops": report["relative_bops"], "progress": optimizer.progress(),
        "own_scores": optimizer.pruner.scores().tolist(), "shared_scores": optimizer.pruner._scores().tolist(),
    }  # fmt: skip


def main(folder: Path, cases: list[dict[str, Any]]) -> None:
    """Train each case and write how this rank ended it, with the weights themselves."""
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    for number, case in enumerate(cases):
        path = folder / f"case{number}.checkpoint"
        geta, optimizer = train(case, path)
        tensors = {name: tensor.detach().clone() for name, tensor in parameter_tensors(geta.model).items()}
        tensors |= {name: tensor.detach().clone() for name, tensor in geta.model.named_parameters()}
        result = result_of(geta, optimizer, tensors)
        if "save_at" in case:
            again, _ = train(case, path, resume=True)
            names = again.model.state_dict()
            result["resumed_alike"] = all(torch.equal(names[name], tensor) for name, tensor in geta.model.state_dict().items())
        (folder / f"case{number}.rank{rank}.json").write_text(json.dumps(result))
        torch.save(tensors, folder / f"case{number}.rank{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
