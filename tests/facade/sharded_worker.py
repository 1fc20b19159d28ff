"""One rank of a sharded run: checkpoints, sensitivity, subnets, models from the meta device. Run by tests/facade/test_sharded.py.

``sharded_worker.py FOLDER JOB`` writes what this rank found into the folder. In one process (no RANK) nothing is sharded: the same lines.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

import geta_nb as gt
from geta_nb.errors import CheckpointError, RunStateError
from geta_nb.sharding import is_sharded, local

BATCH, TOTAL, SAVED = 8, 26, 13
SCHEDULE = gt.Schedule(2, 8, 3, 12, 3, 3, joint_start=6)
RANK, RANKS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Stem(nn.Module):
    """A convolution and a frozen norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 9, 3, padding=1), nn.BatchNorm2d(9)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 9]."""
        return F.gelu(self.norm(self.conv(x))).mean((2, 3))


class Net(nn.Module):
    """A stem and two linear layers, of which one has fewer rows than four ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hidden, self.head = Stem(), nn.Linear(9, 13), nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3]."""
        return self.head(F.gelu(self.hidden(self.stem(x))))


def network() -> Net:
    torch.manual_seed(0)
    net = Net().double()
    net.stem.norm.eval()
    return net


def batch(number: int) -> tuple[Tensor, Tensor]:
    """The whole of a batch; a rank takes its rows."""
    draw = torch.Generator().manual_seed(number)
    labels = torch.arange(BATCH) % 3
    x = 0.5 * torch.randn(BATCH, 3, 5, 5, dtype=torch.float64, generator=draw)
    x[torch.arange(BATCH), labels] += 0.5
    return x, labels


def share(number: int) -> tuple[Tensor, Tensor]:
    """The rows of a batch that are this rank's."""
    x, labels = batch(number)
    rows = slice(RANK * BATCH // RANKS, (RANK + 1) * BATCH // RANKS)
    return x[rows], labels[rows]


def loss(model: nn.Module, of: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(of[0]), of[1])


def shard(model: nn.Module) -> None:
    if RANKS > 1:
        fully_shard(model.hidden)
        fully_shard(model)


def compressed(*, activations: bool = True) -> gt.GETA:
    geta = gt.GETA(network(), batch(0)[0][:2], quantize=gt.QuantConfig(activations=activations, initial_bits=8))
    geta.calibrate([batch(-1)[0]])
    shard(geta.model)
    return geta


def optimizer_of(geta: gt.GETA) -> gt.QASSO:
    budget = gt.Budget(relative_bops=0.02, bit_range=(4, 8), activation_bit_range=(6, 8))
    return geta.qasso(torch.optim.AdamW, lr=1e-2, eps=0.1, budget=budget, schedule=SCHEDULE)


def train(geta: gt.GETA, optimizer: gt.QASSO, until: int) -> None:
    while optimizer.steps_done < until:
        optimizer.zero_grad()
        geta.model.train()
        geta.model.stem.norm.eval()
        loss(geta.model, share(optimizer.steps_done)).backward()
        optimizer.step()


def whole(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a model, whole; a collective where it is sharded."""
    return {name: (p.detach().full_tensor() if is_sharded(p) else p.detach()).clone() for name, p in model.named_parameters()}


def report_of(geta: gt.GETA, optimizer: gt.QASSO) -> dict[str, Any]:
    bits = [geta.bit_widths(), geta.activation_bit_widths()]
    return {"alive": optimizer.group_mask.tolist(), "bits": bits, "sparsity": geta.group_sparsity()}


def straight(folder: Path) -> dict[str, Any]:
    """Train, save half way, cut; and what each asks of all ranks."""
    geta = compressed()
    before = whole(geta.model)
    asked: dict[str, Any] = {"kept": (0.5,), "bits": (4, 6)}
    rises = {how: geta.sensitivity([share(50), share(51)], loss, estimate=how, **asked) for how in ("measured", "gradient")}
    found: dict[str, Any] = {"rises": {how: [rise.mean for rise in s.rises.values()] for how, s in rises.items()}}
    found["order"] = {name: list(groups) for name, groups in rises["gradient"].order.items()}
    found["as_before"] = all(torch.equal(before[name], now) for name, now in whole(geta.model).items())
    found["no_gradients"] = all(p.grad is None for p in geta.model.parameters())
    optimizer = optimizer_of(geta)
    train(geta, optimizer, SAVED)
    if RANKS > 1:
        dcp.save({"geta": geta}, checkpoint_id=folder / "checkpoint")
        try:
            geta.save_checkpoint(folder / "one_file")
        except CheckpointError as error:
            found["one_file"] = str(error)
    train(geta, optimizer, TOTAL)
    found |= report_of(geta, optimizer)
    torch.save(whole(geta.model), folder / f"straight.rank{RANK}.pt")
    geta.model.eval()
    with torch.no_grad():
        expected = geta.model(batch(70)[0])
    subnet = geta.construct_subnet()
    if RANK == 0:
        found["difference"] = float((subnet(batch(70)[0]) - expected).detach().abs().max())
        found["relative_bops"] = geta.report(subnet).costs.relative_bops
        gt.save(subnet, folder / "small.safetensors")
    else:
        try:
            subnet(batch(70)[0])
        except RunStateError as error:
            found["elsewhere"] = str(error)
    again = whole(geta.model)
    train(geta, optimizer, TOTAL + 1)  # the model that was gathered trains on
    found["trains_on"] = any(not torch.equal(again[name], now) for name, now in whole(geta.model).items())
    geta.mask([int(i) for i in range(3)])
    found["masked"] = geta.group_sparsity()
    return found


def resumed(folder: Path) -> dict[str, Any]:
    """Go on from what ``straight`` saved, on another number of ranks."""
    geta = compressed()
    dcp.load({"geta": geta}, checkpoint_id=folder / "checkpoint")
    optimizer = optimizer_of(geta)
    dcp.load({"geta": geta}, checkpoint_id=folder / "checkpoint")
    found: dict[str, Any] = {"from": optimizer.steps_done}
    train(geta, optimizer, TOTAL)
    torch.save(whole(geta.model), folder / f"resumed.rank{RANK}.pt")
    return found | report_of(geta, optimizer)


def materialised(folder: Path) -> dict[str, Any]:
    """From the meta device: memory and weights only once it is sharded."""
    with torch.device("meta"):
        model = Net().double()
    geta = gt.GETA(model.eval(), torch.empty(2, 3, 5, 5, dtype=torch.float64, device="meta"), quantize=gt.QuantConfig(initial_bits=8))
    shard(geta.model)
    found: dict[str, Any] = {}
    state = network().state_dict() if RANK == 0 else None
    try:
        geta.load_weights(state)
    except CheckpointError as error:
        found["meta"] = str(error)
    geta.model.to_empty(device="cpu")
    try:
        geta.load_weights(None if state is None else {name: value for name, value in state.items() if name != "head.bias"})
    except CheckpointError as error:
        found["missing"] = str(error)
    geta.load_weights(state)
    plain = compressed(activations=False)
    ours, theirs = whole(geta.model), whole(plain.model)
    found["alike"] = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    # a second way: weights that are written in place; ranges come with the optimizer
    for quantizer in geta.quantizers.weights.values():
        quantizer.forget_range()
    optimizer = optimizer_of(geta)
    found["started"] = all(torch.equal(whole(geta.model)[name], theirs[name]) for name in theirs)
    train(geta, optimizer, TOTAL)
    subnet = geta.construct_subnet()
    return found | report_of(geta, optimizer) | {"kind": type(subnet).__name__}


def prepared_by_accelerate(folder: Path) -> dict[str, Any]:
    """The optimizer first, sharded afterwards, as accelerate does with its FSDP2 plugin; of a CPU it has to be told that it may."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["Stem"], cpu_ram_efficient_loading=False
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}
    geta = gt.GETA(network(), batch(0)[0][:2], quantize=gt.QuantConfig(initial_bits=8))
    optimizer = optimizer_of(geta)
    model, wrapped = accelerator.prepare(geta.model, optimizer)
    bias = geta.model.head.bias
    found: dict[str, Any] = {"sharded": is_sharded(bias), "rows": len(local(bias)), "same": model is geta.model}
    while optimizer.steps_done < TOTAL:
        wrapped.zero_grad()
        accelerator.backward(loss(model, share(optimizer.steps_done)))
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        wrapped.step()
    return found | report_of(geta, optimizer)


def trained_by_trainer(folder: Path) -> dict[str, Any]:
    """Hugging Face's Trainer over accelerate's FSDP2: a Llama with tied embeddings and shared key heads, which generates afterwards."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        cpu_ram_efficient_loading=False,
    )  # fmt: skip
    config = LlamaConfig(
        vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    rows = torch.randint(0, 48, (64, 12), generator=torch.Generator().manual_seed(0))
    quantize = gt.QuantConfig(skip=("model.embed_tokens",))
    geta = gt.GETA(LlamaForCausalLM(config), (), example_kwargs={"input_ids": rows[:2], "use_cache": False}, quantize=quantize)

    class Compressing(Trainer):
        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}
            self.is_fsdp_enabled = True

        def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
            budget, schedule = gt.Budget(0.4, bit_range=(4, 8)), gt.Schedule.for_steps(30)
            self.optimizer = self.optimizer or geta.qasso(torch.optim.AdamW, lr=1e-3, budget=budget, schedule=schedule)
            return self.optimizer

    args = TrainingArguments(
        str(folder / "trainer"), per_device_train_batch_size=4, max_steps=30, use_cpu=True, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in rows]
    trainer = Compressing(model=geta.model, args=args, train_dataset=data)
    trainer.train()
    found = {"sharded": is_sharded(geta.model.model.norm.weight), "sparsity": geta.group_sparsity(), "bits": geta.bit_widths()}
    subnet = geta.construct_subnet()
    if RANK == 0:
        found["generated"] = list(subnet.generate(rows[:1, :4], max_new_tokens=4, min_new_tokens=4, do_sample=False).shape)
    return found


JOBS = {
    "straight": straight, "resumed": resumed, "materialised": materialised, "accelerate": prepared_by_accelerate,
    "trainer": trained_by_trainer,
}  # fmt: skip


def main(folder: Path, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    for job in jobs:
        (folder / f"{job}.rank{RANK}.json").write_text(json.dumps(JOBS[job](folder)))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
