"""Measure what a training step costs: the optimizer step of each stage and the passes, ours beside the same plain optimizer and fp32 net.

In: the name of a network and of an optimizer. Out: ratios. Both sides start from the same weights and take turns in one process with one
thread; a round is one step of each, what counts is the median over rounds of (ours / theirs), both in processor time.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.bench.speed_nets import conv_bn, imported

BUDGET = gt.Budget(group_sparsity=0.5)
FOREVER = 10**6
SCHEDULES = {
    # each stage long enough that no measurement leaves it; a period of the joint stage is 2000 steps, so that only "selection" chooses
    "warm-up": gt.Schedule(FOREVER, 5, 5, 5, 5),
    "projection": gt.Schedule(1, FOREVER, 5, 5, 5),
    "joint": gt.Schedule(1, 5, 5, 10_000, 5),
    "joint (paper's rules)": gt.Schedule(1, 5, 5, 10_000, 5),
    "cool-down": gt.Schedule(1, 5, 5, 5, 5),
}
LEAD_IN = {"warm-up": 3, "projection": 5, "joint": 12, "joint (paper's rules)": 12, "cool-down": 14}
"""Steps done before anything is timed: through the stages before."""
SELECTION = gt.Schedule(1, 5, 5, 4 * 500, 500)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(c_in, c_out, 3, stride), conv_bn(c_out, c_out, 3, act=None))
        self.shortcut = nn.Identity() if stride == 1 else conv_bn(c_in, c_out, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet20() -> nn.Module:
    """ResNet-20 for 32x32 pictures, 0.27M parameters (He et al. 2016)."""
    widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    return nn.Sequential(conv_bn(3, 16, 3), *(BasicBlock(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg7(width: int = 128) -> nn.Module:
    """VGG7-BN for 32x32 pictures: convolutions of 1, 1, 2, 2, 4, 4 times ``width`` channels; 4.6M parameters."""
    layers: list[nn.Module] = []
    channels = 3
    for number, factor in enumerate((1, 1, 2, 2, 4, 4)):
        layers.append(conv_bn(channels, factor * width, 3))
        channels = factor * width
        if number % 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def vit() -> nn.Module:
    """A small ViT: 6 layers of width 192, 3 heads, 32x32 pictures in patches of 4; 2.7M parameters."""
    hf = imported("transformers")
    config = hf.ViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, image_size=32, patch_size=4, num_labels=10
    )
    model: nn.Module = hf.ViTForImageClassification(config)
    return model


def bert_mini() -> nn.Module:
    """BERT-mini: 4 layers of width 256, 4 heads; 11.2M parameters (Turc et al. 2019)."""
    hf = imported("transformers")
    config = hf.BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    model: nn.Module = hf.BertForSequenceClassification(config)
    return model


def mlp(width: int, depth: int = 4) -> nn.Module:
    """``depth`` square linear layers: ``depth * width**2`` weights, ``depth * width`` groups."""
    return nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())), nn.Linear(width, 10))


@dataclass(frozen=True)
class StepNet:
    """A network of the table.

    Attributes:
        label: what the table calls it.
        build: makes it, random weights.
        inputs: makes a batch.
    """

    label: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]


NETS: dict[str, StepNet] = {
    "resnet20": StepNet("ResNet20, batch 64", resnet20, lambda: torch.randn(64, 3, 32, 32)),
    "vgg7": StepNet("VGG7, batch 16", vgg7, lambda: torch.randn(16, 3, 32, 32)),
    "vit": StepNet("ViT (2.7M), batch 32", vit, lambda: torch.randn(32, 3, 32, 32)),
    "bert_mini": StepNet("BERT-mini, batch 8 x 128", bert_mini, lambda: torch.randint(0, 1000, (8, 128))),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=1e-4, momentum=0.9, weight_decay=1e-4, foreach=True),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-5, foreach=True),
}


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    """Return a scalar that all outputs reach."""
    out = model(batch)
    tensor: Tensor = out if isinstance(out, Tensor) else out[0]
    return tensor.float().square().mean()


_OTHER_DATA = torch.zeros(1 << 24)


def timed(call: Callable[[], object]) -> float:
    """Return the processor seconds of one call that finds other data in the caches, as an optimizer does after a backward pass."""
    _OTHER_DATA.add_(1)
    start = time.process_time()
    call()
    return time.process_time() - start


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return the median ratio of ours to theirs over ``rounds`` pairs, and both medians in milliseconds."""
    for _ in range(3):
        ours()
        theirs()
    return medians([(timed(ours), timed(theirs)) for _ in range(rounds)])


def medians(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the median of the ratios of (ours, theirs), and both medians in milliseconds."""
    ours, theirs = zip(*pairs, strict=True)
    return {"ratio": median(a / b for a, b in pairs), "ours": 1e3 * median(ours), "theirs": 1e3 * median(theirs)}


class Pair:
    """A plain network with a plain optimizer, and its quantized twin with ours in one stage.

    Args:
        build: makes the network.
        batch: of inputs.
        optimizer: name in :data:`OPTIMIZERS`.
        schedule: of ours.
        config: what is quantized.
        lead_in: steps that ours takes first.
        device: where both are.
        options: further options of ``geta.qasso``.
    """

    def __init__(
        self, build: Callable[[], nn.Module], batch: Tensor, *, optimizer: str, schedule: gt.Schedule, config: gt.QuantConfig | None,
        lead_in: int = 0, device: str = "cpu", **options: Any,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        self.batch, self.plain = batch.to(device), build().to(device).train()
        self.model = copy.deepcopy(self.plain)
        self.geta = gt.GETA(self.model, self.batch[:2], quantize=config)
        if config is not None and config.activations:
            self.geta.calibrate([self.batch])
        make = OPTIMIZERS[optimizer]
        self.theirs = make(self.plain.parameters())
        own = [p for name, p in self.model.named_parameters() if not name.endswith(("step_size", "clip_max", "exponent"))]
        self.ours = self.geta.qasso(make(own), budget=BUDGET, schedule=schedule, lr_quant=1e-5, **options)
        self.backward(self.model)
        self.backward(self.plain)
        for _ in range(lead_in):
            self.ours.step()

    def backward(self, model: nn.Module) -> None:
        """Forward and backward of one batch, from no gradients."""
        model.zero_grad(set_to_none=True)
        loss_of(model, self.batch).backward()


def stage_run(net: str, optimizer: str, stage: str, rounds: int) -> dict[str, Any]:
    """Return the cost of optimizer steps of one stage, weights quantized."""
    options = {"rules": "paper"} if "paper" in stage else {}
    found = NETS[net]
    pair = Pair(
        found.build, found.inputs(), optimizer=optimizer, schedule=SCHEDULES[stage], config=gt.QuantConfig(), lead_in=LEAD_IN[stage],
        **options,
    )
    stage_name = stage.partition(" ")[0]
    assert pair.ours.stage == stage_name, (pair.ours.stage, stage)
    result = interleaved(pair.ours.step, pair.theirs.step, rounds)
    assert pair.ours.stage == stage_name
    return result


def selection_run(net: str, optimizer: str, rounds: int) -> dict[str, Any]:
    """Return the cost of the steps that choose groups, and of the whole joint stage when it chooses every fourth step."""
    found = NETS[net]
    pair = Pair(found.build, found.inputs(), optimizer=optimizer, schedule=SELECTION, config=gt.QuantConfig(), lead_in=6)
    pairs = []
    for _ in range(rounds):
        pairs.append((timed(pair.ours.step), timed(pair.theirs.step)))
        for _ in range(3):
            pair.ours.step()
            pair.theirs.step()
    return medians(pairs)


def passes_run(net: str, activations: bool, compiled: bool, rounds: int) -> dict[str, Any]:
    """Return the cost of forward and backward of the quantized net, and of both with the optimizer step of the joint stage."""
    found = NETS[net]
    config = gt.QuantConfig(activations=activations, compile=compiled)
    pair = Pair(found.build, found.inputs(), optimizer="adamw", schedule=SCHEDULES["joint"], config=config, lead_in=12)

    def ours() -> None:
        pair.backward(pair.model)
        pair.ours.step()

    def theirs() -> None:
        pair.backward(pair.plain)
        pair.theirs.step()

    passes = interleaved(lambda: pair.backward(pair.model), lambda: pair.backward(pair.plain), rounds)
    return passes | {"whole_step": interleaved(ours, theirs, rounds)["ratio"]}


def scaling_run(width: int, depth: int, rounds: int) -> dict[str, Any]:
    """Return the cost of a joint step of ``depth`` square layers, beside the plain step: per parameter it should not grow."""
    batch, config = torch.randn(2, width), gt.QuantConfig()
    pair = Pair(lambda: mlp(width, depth), batch, optimizer="adamw", schedule=SCHEDULES["joint"], config=config, lead_in=12)
    parameters = sum(p.numel() for p in pair.plain.parameters())
    facts = {"parameters": parameters, "groups": len(pair.geta.groups)} | interleaved(pair.ours.step, pair.theirs.step, rounds)
    return facts | {"ns_per_parameter": 1e6 * facts["ours"] / parameters}


MEMORY = """
import sys, torch
torch.set_num_threads(1)
from geta_nb.bench.step_speed import SCHEDULES, Pair, mlp
import geta_nb as gt
which, width = sys.argv[1], int(sys.argv[2])
pair = Pair(lambda: mlp(width), torch.randn(8, width), optimizer="sgd", schedule=SCHEDULES["joint"], config=gt.QuantConfig(), lead_in=12)
model, optimizer = (pair.model, pair.ours) if which == "ours" else (pair.plain, pair.theirs)
for _ in range(2):
    pair.backward(model)
    optimizer.step()
model.zero_grad(set_to_none=True)
with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
    pair.backward(model)
    optimizer.step()
now = peak = 0
for event in profile.profiler.kineto_results.events():
    if event.name() == "[memory]":
        now += event.nbytes()
        peak = max(peak, now)
print(peak)
"""


def memory_run(width: int) -> dict[str, Any]:
    """Return how much more memory a training step of ours takes at its peak than the plain one, in copies of the quantized weights."""
    peaks = {}
    for which in ("ours", "theirs"):
        command = [sys.executable, "-W", "ignore", "-c", MEMORY, which, str(width)]
        peaks[which] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    weights = 4 * (4 * width * width + 10 * width)
    return peaks | {"weights": weights, "copies": (peaks["ours"] - peaks["theirs"]) / weights}
