"""What ``make bench-gpu`` measures, cell by cell: steps, passes, whole trainings and memory on an accelerator, ours beside the plain one.

In: a device and a size. Out: for each cell a dictionary of numbers. All clocks are wall clocks that wait for the device at both ends, both
sides take turns, and what counts is the median over rounds of (ours / theirs), as on the CPU (``step_speed``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.bench.speed_nets import imported
from geta_nb.bench.step_speed import LEAD_IN, NETS, OPTIMIZERS, SCHEDULES, SELECTION, Pair, StepNet, loss_of, medians, mlp, resnet20

Found = dict[str, Any]
PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
WAYS = ("eager", "compiled quantizers", "compiled whole", "CUDA graphs")


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Args:
        device: "cuda" or "cpu".
        rounds: pairs of calls that are timed.
        small: networks of a few thousand weights, for tests.
        compiler: backend of ``torch.compile``.
    """

    device: str = "cuda"
    rounds: int = 30
    small: bool = False
    compiler: str = "inductor"

    def nets(self) -> Mapping[str, StepNet]:
        """Return the networks of the step table; one little one where ``small``."""
        return {"mlp": StepNet("MLP", lambda: mlp(8, 2), lambda: torch.randn(4, 8))} if self.small else NETS


def wait(device: str) -> None:
    """Wait until the device has done all it was asked for."""
    if device != "cpu":
        torch.accelerator.synchronize()


def timed(call: Callable[[], object], device: str) -> float:
    """Return the seconds of one call, from an idle device to an idle device."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def taking_turns(ours: Callable[[], object], theirs: Callable[[], object], setting: Setting) -> Found:
    """Return the median ratio of ours to theirs, and both medians in milliseconds."""
    for _ in range(3):
        ours()
        theirs()
    return dict(medians([(timed(ours, setting.device), timed(theirs, setting.device)) for _ in range(setting.rounds)]))


def _pair(setting: Setting, net: str, optimizer: str, stage: str, config: gt.QuantConfig | None = None, **options: Any) -> Pair:
    found = setting.nets()[net]
    batch = found.inputs()
    schedule, lead_in = (SELECTION, 6) if stage == "selection" else (SCHEDULES[stage], LEAD_IN[stage])
    return Pair(
        lambda: settled(found.build(), batch), batch, optimizer=optimizer, schedule=schedule, config=config or gt.QuantConfig(),
        lead_in=lead_in, device=setting.device, **options,
    )  # fmt: skip


@torch.no_grad()
def settled(model: nn.Module, batch: Tensor) -> nn.Module:
    """Return a fresh model with the statistics of a batch in its batch norms: else inputs are calibrated that no training step sees."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean of all that it has seen, which is this
    if norms:
        model.train()(batch[:64])
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return model


def step_cell(setting: Setting, net: str, optimizer: str, stage: str) -> Found:
    """Return the cost of optimizer steps of a stage, weights quantized; "selection": of the first step of each period."""
    options: dict[str, Any] = {"rules": "paper"} if "paper" in stage else {}
    pair = _pair(setting, net, optimizer, stage, **options)
    if stage != "selection":
        return taking_turns(pair.ours.step, pair.theirs.step, setting)
    pairs = []
    for _ in range(max(setting.rounds // 4, 3)):
        pairs.append((timed(pair.ours.step, setting.device), timed(pair.theirs.step, setting.device)))
        for _ in range(3):
            pair.ours.step()
            pair.theirs.step()
    return dict(medians(pairs))


def passes_cell(setting: Setting, net: str, way: str, precision: str, activations: bool) -> Found:
    """Return the cost of forward and backward, both sides in the same way, and of both with the optimizer step of the joint stage.

    Args:
        way: one of :data:`WAYS`; with "compiled quantizers" the plain side is eager.
        precision: autocast to it; "float32" without.
    """
    if way == "CUDA graphs" and setting.device != "cuda":
        return {"left_out": "CUDA graphs are CUDA's"}
    pair = _pair(setting, net, "adamw", "joint", gt.QuantConfig(activations=activations, compile=way == "compiled quantizers"))
    ours, theirs = (_pass(pair, model, setting, way, precision) for model in (pair.model, pair.plain))

    def whole(one: Callable[[], object], step: Callable[[], object]) -> Callable[[], object]:
        return lambda: (one(), step())

    passes = taking_turns(ours, theirs, setting)
    return passes | {"whole_step": taking_turns(whole(ours, pair.ours.step), whole(theirs, pair.theirs.step), setting)["ratio"]}


def _pass(pair: Pair, model: nn.Module, setting: Setting, way: str, precision: str) -> Callable[[], object]:
    """Return one call that leaves fresh gradients of a batch in ``model``."""
    called: Any = torch.compile(model, backend=setting.compiler) if way == "compiled whole" else model
    dtype = PRECISIONS[precision]

    def backward() -> None:
        model.zero_grad(set_to_none=way != "CUDA graphs")
        with torch.autocast(setting.device, dtype) if dtype is not None else nullcontext():
            loss = loss_of(called, pair.batch)
        loss.backward()

    return _graphed(backward) if way == "CUDA graphs" else backward


def _graphed(call: Callable[[], object]) -> Callable[[], object]:
    """Return what plays a call again from a CUDA graph; gradients stay at their addresses, and are zeroed in it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def throughput_cell(setting: Setting, precision: str) -> Found:
    """Return the images a second that ResNet20 is trained on at CIFAR's size, ours in the joint stage and plain; generated images."""
    images = torch.randn(4 if setting.small else 512, 3, 32, 32)
    pair = Pair(
        lambda: settled(resnet20(), images), images, optimizer="sgd", schedule=SCHEDULES["joint"], config=gt.QuantConfig(activations=True),
        lead_in=LEAD_IN["joint"], device=setting.device,
    )  # fmt: skip
    ours, theirs = (_pass(pair, model, setting, "eager", precision) for model in (pair.model, pair.plain))
    found = taking_turns(lambda: (ours(), pair.ours.step()), lambda: (theirs(), pair.theirs.step()), setting)
    return found | {f"{side}_images_per_second": 1e3 * len(images) / found[side] for side in ("ours", "theirs")}


def language_model(small: bool) -> nn.Module:
    """Return a Llama of 1.3 billion weights, or a little one."""
    hf = imported("transformers")
    sizes = {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 32000}
    if small:
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    model: nn.Module = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, use_cache=False))
    return model


def memory_cell(setting: Setting, side: str) -> Found:
    """Return the most bytes that a training step of a language model holds: AdamW, bfloat16 autocast, one text of 512 tokens.

    Args:
        side: "ours" (quantized weights, joint stage) or "theirs" (plain).
    """
    tokens = torch.zeros(1, 8 if setting.small else 512, dtype=torch.long, device=setting.device)
    with torch.device(setting.device):
        torch.manual_seed(0)
        model = language_model(setting.small).train()
    weights = sum(p.numel() for p in model.parameters())
    make = OPTIMIZERS["adamw"]
    if side == "ours":
        geta = gt.GETA(model, tokens[:, :8])
        own = [p for name, p in model.named_parameters() if not name.endswith(("step_size", "clip_max", "exponent"))]
        optimizer: torch.optim.Optimizer = geta.qasso(make(own), budget=gt.Budget(group_sparsity=0.5), schedule=SCHEDULES["joint"])
    else:
        optimizer = make(model.parameters())

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(setting.device, torch.bfloat16):
            loss = loss_of(model, tokens)
        loss.backward()
        optimizer.step()

    for _ in range(LEAD_IN["joint"]):  # into the joint stage, and so that the optimizer's state is there
        step()
    model.zero_grad(set_to_none=True)
    return {"weights": weights, "peak_bytes": peak_of(step, model, optimizer, setting.device)}


def peak_of(call: Callable[[], object], model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> int:
    """Return the most bytes that are held during a call; on the CPU, weights and state plus what the call itself holds at its peak."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    state = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
    return peak + sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), *state))


def cells(part: str, setting: Setting) -> dict[str, Callable[[], Found]]:
    """Return the cells of a part by name, those that matter most first."""
    nets = list(setting.nets())
    if part == "steps":
        stages = [*SCHEDULES, "selection"]
        asked = [(net, optimizer, stage) for net in nets for optimizer in OPTIMIZERS for stage in stages]
        return {f"{net}, {optimizer}, {stage}": _bound(step_cell, setting, net, optimizer, stage) for net, optimizer, stage in asked}
    if part == "passes":
        ways = [(net, way, precision, a) for way in WAYS for precision in PRECISIONS for net in nets for a in (False, True)]
        return {
            f"{net}, {'weights and inputs' if a else 'weights'}, {precision}, {way}": _bound(passes_cell, setting, net, way, precision, a)
            for net, way, precision, a in ways
        }
    if part == "throughput":
        return {precision: _bound(throughput_cell, setting, precision) for precision in PRECISIONS}
    return {side: _bound(memory_cell, setting, side) for side in ("theirs", "ours")}


def _bound(run: Callable[..., Found], *arguments: Any) -> Callable[[], Found]:
    return lambda: run(*arguments)
