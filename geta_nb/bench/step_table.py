"""Print what a training step costs: ``python -m geta_nb.bench.step_table`` (or ``make bench-step``).

Optimizer steps by stage, forward and backward, whole steps, memory, and growth with size; everything as a ratio to the same plain torch
optimizer and fp32 network in the same run. Each part's result is kept, so a killed command resumes.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from geta_nb.bench.jobs import Job, run_jobs, write_json
from geta_nb.bench.speed_nets import imported
from geta_nb.bench.step_speed import NETS, OPTIMIZERS, SCHEDULES, memory_run, passes_run, scaling_run, selection_run, stage_run

WANTED = {"warm-up": 1.1, "projection": 1.15, "joint": 1.5, "cool-down": 1.15, "selection": 3.0}
WANTED_PASSES = {False: 1.15, True: 1.6}
SIZES = {"1M": (500, 4), "10M": (1600, 4), "100M": (5000, 4), "100M, fewer groups": (10_000, 1)}
Results = Mapping[str, Mapping[str, Any]]


def all_jobs(rounds: int) -> dict[str, Job]:
    """One job for each number of the tables."""
    few = max(rounds // 4, 3)
    jobs: dict[str, Job] = {}
    for net in NETS:
        for optimizer in OPTIMIZERS:
            name = f"{net}-{optimizer}"
            for stage in SCHEDULES:
                jobs[f"{name}-{stage.replace(' ', '_')}"] = Job(stage_run, _call(net, rounds, optimizer=optimizer, stage=stage))
            jobs[f"{name}-selection"] = Job(selection_run, _call(net, few, optimizer=optimizer))
        for activations in (False, True):
            for compiled in (False, True):
                call = _call(net, few, activations=activations, compiled=compiled)
                jobs[f"{net}-passes-{activations:d}{compiled:d}"] = Job(passes_run, call)
    for label, (width, depth) in SIZES.items():
        jobs[f"size-{label.replace(' ', '_')}"] = Job(scaling_run, {"width": width, "depth": depth, "rounds": few})
    return jobs | {"memory": Job(memory_run, {"width": 1024})}


def _call(net: str, rounds: int, **arguments: Any) -> dict[str, Any]:
    return {"net": net, "rounds": rounds, **arguments}


def steps_table(results: Results) -> str:
    """Return the optimizer's steps by stage as markdown."""
    stages = [*SCHEDULES, "selection"]
    lines = [["wanted", *(f"{WANTED[s]}" if s in WANTED else "" for s in stages), ""]]
    for net, facts in NETS.items():
        for optimizer in OPTIMIZERS:
            found = [results[f"{net}-{optimizer}-{stage.replace(' ', '_')}"] for stage in stages]
            plain = found[0]["theirs"]
            lines.append([f"{facts.label}, {optimizer}", *(f"{r['ratio']:.2f}" for r in found), f"{plain:.2f} ms"])
    return _table(["optimizer.step()", *stages, "plain step"], lines)


def passes_table(results: Results) -> str:
    """Return forward + backward, and whole training steps, as markdown; eager and with ``QuantConfig(compile=True)``."""
    kinds = [(a, c) for a in (False, True) for c in (False, True)]
    head = [f"{'weights and activations' if a else 'weights'}{', compiled' if c else ''}" for a, c in kinds]
    lines = [["wanted", *(f"{WANTED_PASSES[a]}" for a, _ in kinds), ""]]
    for net, facts in NETS.items():
        found = [results[f"{net}-passes-{a:d}{c:d}"] for a, c in kinds]
        cells = [f"{r['ratio']:.2f} ({r['whole_step']:.2f})" for r in found]
        lines.append([facts.label, *cells, f"{found[0]['theirs']:.0f} ms"])
    return _table(["forward + backward (with a joint AdamW step)", *head, "plain"], lines)


def sizes_table(results: Results) -> str:
    """Return the growth of a joint step with parameters and groups as markdown."""
    lines = []
    for label in SIZES:
        r = results[f"size-{label.replace(' ', '_')}"]
        figures = [f"{r['ours']:.1f} ms", f"{r['ns_per_parameter']:.1f}", f"{r['ratio']:.2f}"]
        lines.append([label, f"{r['parameters'] / 1e6:.1f}M", str(r["groups"]), *figures])
    return _table(["joint AdamW step", "parameters", "groups", "ours", "ns per parameter", "ratio"], lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def markdown(results: Results) -> str:
    """Return everything that was measured as markdown."""
    memory = results["memory"]
    text = f"Peak memory of a training step beyond the plain one: {memory['copies']:.3f} copies of the quantized weights."
    return "\n\n".join([steps_table(results), passes_table(results), sizes_table(results), text]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write ``table.json`` and ``table.md``, print the markdown."""
    parser = argparse.ArgumentParser(description="What a training step costs beside the plain one.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_step"), help="folder of results and tables")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved pairs of optimizer steps; a quarter of it for slower things")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(options.output.resolve() / "compiled"))
    torch.set_num_threads(1)
    versions = {"torch": torch.__version__, "transformers": imported("transformers").__version__}
    results = run_jobs(all_jobs(options.rounds), options.output / "runs", workers=1, title="steps")
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "threads": 1, "device": "cpu"}
    write_json(options.output / "table.json", {"versions": versions, "machine": machine, "results": results})
    text = markdown(results)
    partial_file = options.output / ".table.md"
    partial_file.write_text(text)
    partial_file.replace(options.output / "table.md")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
