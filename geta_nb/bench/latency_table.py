"""Print the latency table: ``python -m geta_nb.bench.latency_table`` (or ``make bench-latency``).

Dense fp32 beside the subnet (half of the groups, 8 bits) in eager torch, ONNX Runtime and OpenVINO, batch 1 and 64, one thread. Each
network's result is kept, so a killed command resumes. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from geta_nb.bench.jobs import Job, run_jobs, write_json
from geta_nb.bench.latency_nets import NETS, built
from geta_nb.bench.latency_profile import profile
from geta_nb.latency.runs import benchmark_latency
from geta_nb.onnx import export_onnx

BATCHES = (1, 64)
WORDS = {"torch": "torch, eager", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
Results = Mapping[str, Mapping[str, Any]]

HEAD = """# Latency, measured

Made by `make bench-latency` on {machine}, {threads} thread, with
{versions}. Random weights; half of the groups of every family are
gone, channels rounded up to multiples of 8, weights and inputs of 8 bits (`QuantConfig(activations=True)`). Milliseconds of
processor time of one call: all systems take turns, {rounds} rounds, medians; a speed-up is the
median of the ratios of neighbours in time. *Over eager*: over the dense float32 network in eager torch. *Same runtime*: over the dense
float32 network in the same runtime. OpenVINO computes what the file says (`EXECUTION_MODE_HINT=ACCURACY`), dense and subnet alike. In
eager torch the quantizers are simulated in
float32, so a subnet there saves channels and pays for the simulation. Wanted: 5x over eager and 3x in the same runtime for the
convolutional networks, 3x and 2x for the transformers; figures that reach it are bold.

| network | batch | backend | dense fp32 ms | subnet ms | same runtime | over eager | difference to torch |
|---|---:|---|---:|---:|---:|---:|---:|
"""
PROFILE = """
## Where the time goes

Where the limit is elsewhere: ONNX Runtime runs a convolution in integers (QLinearConv) only where a quantizer follows it, so not before an
addition (the second one of a ResNet block, the last of a MobileNet block) nor at the end of a network: there it is a FusedConv in float32
on fewer channels. OpenVINO runs all of them in integers; at batch 1 on small pictures it spends its time between the layers, on
reorders, clips and the first quantizer, which do not shrink with the bits; the digits network of 82 000 parameters takes 0.1 to 0.2 ms
however it is run. In the transformers what is not a layer with a weight stays float32: products of two activations, softmax, norms,
GELU. Where something other than this program uses the memory bus, large batches of dense float32 suffer most.

Shares of the subnet's time by operator, from the runtime's own counters, batch 64; OpenVINO's operators with the precision they ran in.

| network | runtime | ONNX file, dense / subnet | operators |
|---|---|---:|---|
"""


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Return the latency table of one network, and profiles of its subnet at the largest batch size."""
    model, subnet, example = built(name)
    table = benchmark_latency(subnet, against=model, example_inputs=(example,), batch_sizes=BATCHES, rounds=rounds, clock="processor")
    profiles = {}
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(subnet, Path(folder) / "net.onnx", (example,), integer_biases=True, dynamic=False)
        (leaf,) = pytree.tree_leaves(example)
        batch = leaf[torch.arange(BATCHES[-1]) % len(leaf)].contiguous().numpy()
        feed = {_input_name(path): batch}
        for backend in ("onnxruntime", "openvino"):
            profiles[backend] = profile(backend, path, feed)[:6]
    sizes = {side: sum(p.numel() for p in module.parameters()) for side, module in (("dense", model), ("subnet", subnet))}
    return table.to_dict() | {"profiles": profiles, "parameters": sizes}


def _input_name(path: Path) -> str:
    import onnx

    return str(onnx.load(path).graph.input[0].name)


def rows_of(name: str, result: Mapping[str, Any]) -> list[str]:
    """Return the lines of one network."""
    net, lines = NETS[name], []
    for row in result["rows"]:
        reached = [_bold(row[key], wanted) for key, wanted in (("speedup", net.wanted[1]), ("speedup_eager", net.wanted[0]))]
        cells = [net.label, str(row["batch"]), WORDS[row["backend"]], f"{row['dense_ms']:.3g}", f"{row['subnet_ms']:.3g}", *reached]
        lines.append(f"| {' | '.join(cells)} | {row['difference']:.0e} |")
    return lines


def _bold(factor: float, wanted: float) -> str:
    return f"**{factor:.1f}x**" if factor >= wanted else f"{factor:.1f}x"


def page(results: Results, rounds: int) -> str:
    """Return everything that was measured as markdown."""
    first = next(iter(results.values()))
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    machine = f"{os.cpu_count()} cores ({processor()})"
    lines = [line for name, result in results.items() for line in rows_of(name, result)]
    text = HEAD.format(machine=machine, threads=first["threads"], versions=versions, rounds=rounds) + "\n".join(lines) + "\n"
    shares = []
    for name, result in results.items():
        files = " / ".join(f"{result['file_bytes'][side] / 1000:.0f} kB" for side in ("dense", "subnet"))
        for backend, found in result["profiles"].items():
            parts = ", ".join(f"{operator} {share:.0%}" for operator, share in found if share >= 0.02)
            shares.append(f"| {NETS[name].label} | {WORDS[backend]} | {files} | {parts} |")
    return text + PROFILE + "\n".join(shares) + "\n"


def processor() -> str:
    """Return what decides the speed of integer kernels: the architecture, and its vector instructions for them."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    found = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    return ", ".join([platform.machine(), *found])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write ``table.json`` and the page, print it."""
    parser = argparse.ArgumentParser(description="Latency of dense fp32 networks and their subnets.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_latency"), help="folder of results")
    parser.add_argument("--page", type=Path, default=None, help="file of the markdown; default: table.md beside the results")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", choices=list(NETS), default=list(NETS))
    options = parser.parse_args(arguments)
    jobs = {name: Job(measure, {"name": name, "rounds": options.rounds}) for name in options.only}
    results = run_jobs(jobs, options.output / "runs", workers=1, title="latency")
    text = page(results, options.rounds)
    write_json(options.output / "table.json", results)
    target = options.page or options.output / "table.md"
    target.write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
