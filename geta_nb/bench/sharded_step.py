"""Print what a sharded training step costs beside plain FSDP2: ``python -m geta_nb.bench.sharded_step`` (or ``make bench-sharded``).

Two gloo ranks on this machine. In each, a plain network and its quantized twin, sharded alike, take turns: a round is one call of each,
after the ranks met. What counts is the median over rounds of (ours / plain), in processor time of a rank; and in waiting time, which has
the messages in it. Beside them the same pair unsharded, in the same processes. Each network's result is kept, so a killed command resumes.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import geta_nb as gt
from geta_nb.bench.jobs import Job, run_jobs, write_json
from geta_nb.bench.step_speed import BUDGET, LEAD_IN, NETS, OPTIMIZERS, SCHEDULES, StepNet, loss_of, medians, timed

RANKS = 2
STAGES = ("warm-up", "projection", "joint", "cool-down")
SLACK = 0.05
"""How much higher than the unsharded ratio a sharded one may be: 5 %."""
Call = Callable[[], object]


def shard(model: nn.Module) -> None:
    """Apply ``fully_shard`` as usual: to each layer of a stack, then to the whole."""
    from torch.distributed.fsdp import fully_shard

    stacks: list[nn.Module] = [module for module in model.modules() if type(module) is nn.ModuleList] or [model]
    parts = [part for stack in stacks for part in stack.children() if any(True for _ in part.parameters())]
    for part in (*parts, model):
        fully_shard(part)


class Twins:
    """A plain network with a plain optimizer, and its quantized twin with ours in one stage; sharded both, or whole both.

    Args:
        net: the network.
        optimizer: name in ``OPTIMIZERS``.
        stage: one of :data:`STAGES`.
        sharded: over all ranks; else each rank has its own copy.
    """

    def __init__(self, net: StepNet, *, optimizer: str, stage: str, sharded: bool) -> None:
        torch.manual_seed(0)
        self.batch, plain = net.inputs(), net.build().train()
        model = copy.deepcopy(plain)
        geta = gt.GETA(model, self.batch[:2])
        if sharded:
            shard(plain)
            shard(model)
        make = OPTIMIZERS[optimizer]
        own = [p for name, p in model.named_parameters() if not name.endswith(("step_size", "clip_max", "exponent"))]
        self.models = {"ours": model, "theirs": plain}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "ours": geta.qasso(make(own), budget=BUDGET, schedule=SCHEDULES[stage], lr_quant=1e-5), "theirs": make(plain.parameters())
        }  # fmt: skip
        for which in self.models:
            self.backward(which)
        for _ in range(LEAD_IN[stage]):
            self.optimizers["ours"].step()

    def backward(self, which: str) -> None:
        """Forward and backward of one batch, from no gradients."""
        self.models[which].zero_grad(set_to_none=True)
        loss_of(self.models[which], self.batch).backward()

    def whole(self, which: str) -> None:
        """Do a training step."""
        self.backward(which)
        self.optimizers[which].step()

    def steps(self) -> tuple[Call, Call]:
        """Return our optimizer's step and the plain one's."""
        return self.optimizers["ours"].step, self.optimizers["theirs"].step


def together(call: Call) -> tuple[float, float]:
    """Return processor and waiting seconds of a call that all ranks begin at once."""
    dist.barrier()
    start = time.perf_counter()
    return timed(call), time.perf_counter() - start


def compared(ours: Call, theirs: Call, rounds: int) -> dict[str, float]:
    """Return the ratios of ours to theirs in processor and in waiting time, the mean of the ranks' medians, and both in milliseconds."""
    for _ in range(3):
        ours()
        theirs()
    pairs = [(together(ours), together(theirs)) for _ in range(rounds)]
    own = medians([(a[0], b[0]) for a, b in pairs]) | {"waiting": median(a[1] / b[1] for a, b in pairs)}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return {key: mean(found[key] for found in everyone) for key in own}


def measured(net: str, rounds: int) -> dict[str, Any]:
    """Measure one network on this rank: all ranks must call it."""
    found: dict[str, Any] = {}
    for optimizer in OPTIMIZERS:
        for stage in STAGES:
            for sharded in (False, True):
                twins = Twins(NETS[net], optimizer=optimizer, stage=stage, sharded=sharded)
                found[f"{optimizer}, {stage}, {'sharded' if sharded else 'whole'}"] = compared(*twins.steps(), rounds)
                if (optimizer, stage) == ("adamw", "joint"):
                    few = max(rounds // 4, 3)
                    key = f"training step, {'sharded' if sharded else 'whole'}"
                    found[key] = compared(lambda t=twins: t.whole("ours"), lambda t=twins: t.whole("theirs"), few)  # type: ignore[misc]
    return found


def sharded_run(net: str, rounds: int, ranks: int = RANKS) -> dict[str, Any]:
    """Return what :func:`measured` says, from ``ranks`` new processes.

    Raises:
        RuntimeError: a rank failed; what it said last.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", "-m", "geta_nb.bench.sharded_step", "--net", net, "--rounds", str(rounds)]
        commands = [[*command, "--rank", str(rank), str(ranks), folder] for rank in range(ranks)]
        started = [subprocess.Popen(own, stderr=subprocess.PIPE, text=True) for own in commands]
        words = [process.communicate()[1] for process in started]
        failed = [said for process, said in zip(started, words, strict=True) if process.returncode]
        if failed:
            raise RuntimeError(failed[0][-2000:])
        result: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
    return result


def one_rank(net: str, rounds: int, rank: int, ranks: int, folder: Path) -> None:
    """Be one of the ranks of :func:`sharded_run`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    found = measured(net, rounds)
    if rank == 0:
        (folder / "result.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what was measured as markdown: sharded (whole) ratios in processor time."""
    head = ["sharded over two ranks (whole)", *STAGES, "waiting, joint", "training step", "plain sharded step"]
    lines = [head, ["---"] * len(head)]
    for net, found in results.items():
        for optimizer in OPTIMIZERS:
            cells = [_cell(found, f"{optimizer}, {stage}") for stage in STAGES]
            joint = found[f"{optimizer}, joint, sharded"]
            whole = _cell(found, "training step") if optimizer == "adamw" else ""
            lines.append([f"{NETS[net].label}, {optimizer}", *cells, f"{joint['waiting']:.2f}", whole, f"{joint['theirs']:.2f} ms"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(found: Mapping[str, Any], name: str) -> str:
    sharded, whole = found[f"{name}, sharded"]["ratio"], found[f"{name}, whole"]["ratio"]
    mark = "" if sharded <= whole * (1 + SLACK) else " **+**"
    return f"{sharded:.2f} ({whole:.2f}){mark}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write ``table.json`` and ``table.md``, print the markdown."""
    parser = argparse.ArgumentParser(description="What a sharded training step costs beside plain FSDP2.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_sharded"), help="folder of results and tables")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved pairs of optimizer steps; a quarter of it for training steps")
    parser.add_argument("--net", choices=sorted(NETS), help="only this network")
    parser.add_argument("--rank", nargs=3, metavar=("RANK", "RANKS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rank:
        one_rank(options.net, options.rounds, int(options.rank[0]), int(options.rank[1]), Path(options.rank[2]))
        return 0
    nets = [options.net] if options.net else list(NETS)
    jobs = {net: Job(sharded_run, {"net": net, "rounds": options.rounds}) for net in nets}
    results = run_jobs(jobs, options.output / "runs", workers=1, title="networks")
    write_json(options.output / "table.json", {"versions": {"torch": torch.__version__}, "ranks": RANKS, "results": results})
    text = markdown(results)
    (options.output / "table.md").write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
