"""Print the speed tables: ``python -m geta_nb.bench.speed_table`` (or ``make bench-speed``).

From a model to its first cut model on seven networks at full size, by phase, beside torch-pruning; and the growth with depth of a Llama.
One process, one thread, medians of processor time; each network's result is kept, so a killed command resumes.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from geta_nb.bench.jobs import Job, run_jobs, write_json
from geta_nb.bench.speed import MODES, PHASES, depth_run, net_run, warm_up
from geta_nb.bench.speed_nets import NETS, imported

DEPTHS = (4, 8, 16, 32)
Rows = Sequence[Mapping[str, Any]]


def all_jobs(rounds: int) -> dict[str, Job]:
    """One job per network and one per depth."""
    nets = {f"net-{net}": Job(net_run, {"net": net, "rounds": rounds}) for net in NETS}
    return nets | {f"depth-{layers}": Job(depth_run, {"layers": layers, "rounds": rounds}) for layers in DEPTHS}


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return one network's medians by system: seconds of processor time and of the clock, phases, what is left and whether it runs."""
    facts: dict[str, Any] = {key: value for key, value in result.items() if key != "rounds"}
    for system, rounds in result["rounds"].items():
        phases = {name: median(run["phases"][name] for run in rounds) for name in rounds[0]["phases"]}
        figures = {name: median(run[name] for run in rounds) for name in ("seconds", "wall", "kept")}
        facts[system] = figures | {"phases": phases, "runs": all(run["runs"] for run in rounds), "rounds": len(rounds)}
        if "exporter" in phases:
            exporter = [run["phases"]["exporter"] for run in rounds]
            beside = [run["seconds"] - spent for run, spent in zip(rounds, exporter, strict=True)]
            quiet = [rest - run["phases"]["runs"] for run, rest in zip(rounds, beside, strict=True)]
            facts[system] |= {"beside": median(beside), "share": median(b / e for b, e in zip(beside, exporter, strict=True))}
            facts[system] |= {"share_without_runs": median(b / e for b, e in zip(quiet, exporter, strict=True))}
            facts[system] |= {"exports": max(run["exports"] for run in rounds)}
    return facts


def totals(rows: Rows) -> str:
    """Return the table of totals as markdown, seconds of processor time."""
    head = ["network"]
    for mode in MODES:
        head += [f"{mode}: exporter (runs)", "the rest", "rest / exporter (without runs)", "total", "left"]
    head += ["torch-pruning: build", "prune", "total", "left", "still runs", f"{MODES[0]} / torch-pruning"]
    lines = []
    for row in rows:
        line = [row["label"]]
        for mode in MODES:
            ours = row[mode]
            shares = f"{100 * ours['share']:.0f} % ({100 * ours['share_without_runs']:.0f} %)"
            exporter = f"{_s(ours['phases']['exporter'])} ({ours['exports']})"
            line += [exporter, _s(ours["beside"]), shares, _s(ours["seconds"]), _share(ours["kept"])]
        theirs = row["torch-pruning"]
        line += [_s(theirs["phases"]["build"]), _s(theirs["phases"]["prune"]), _s(theirs["seconds"]), _share(theirs["kept"])]
        lines.append([*line, "yes" if theirs["runs"] else "**no**", f"{row[MODES[0]]['seconds'] / theirs['seconds']:.2f}"])
    return _table(head, lines)


def phases(rows: Rows, mode: str) -> str:
    """Return the table of phases of one mode as markdown."""
    ours = [row[mode] for row in rows]
    seconds = [[*(found["phases"][name] for name in PHASES), found["seconds"], found["wall"]] for found in ours]
    return _table([mode, *PHASES, "total", "clock"], [[row["label"], *map(_s, line)] for row, line in zip(rows, seconds, strict=True)])


def depths(rows: Rows) -> str:
    """Return the table of depths as markdown; ``growth`` is the exponent of time against depth since the row above, 1 = linear."""
    lines, before = [], None
    for row in rows:
        ours = row[MODES[1]]
        growth = "" if before is None else f"{_growth(before, row):.2f}"
        per_layer = f"{1000 * ours['seconds'] / row['layers']:.0f} ms"
        lines.append([str(row["layers"]), _s(ours["phases"]["exporter"]), _s(ours["beside"]), _s(ours["seconds"]), per_layer, growth])
        before = row
    return _table(["layers", "exporter", "the rest", "total", "per layer", "growth"], lines)


def _growth(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    times = [row[MODES[1]]["seconds"] for row in (before, after)]
    return math.log(times[1] / times[0]) / math.log(after["layers"] / before["layers"])


def _s(seconds: float) -> str:
    return f"{seconds:.2f}"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(nets: Rows, deep: Rows) -> str:
    """Return everything that was measured as markdown."""
    parts = [totals(nets), *(phases(nets, mode) for mode in MODES), depths(deep)]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write ``table.json`` and ``table.md``, print the markdown."""
    parser = argparse.ArgumentParser(description="From a model to its first cut model: seconds by phase.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_speed"), help="folder of results and tables")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each system on each network; the median counts")
    options = parser.parse_args(arguments)
    versions = {name: imported(name).__version__ for name in ("torch_pruning", "transformers")} | {"torch": torch.__version__}
    torch.set_num_threads(1)
    warm_up()
    results = run_jobs(all_jobs(options.rounds), options.output / "runs", workers=1, title="speed")
    rows = {name: summary(result) for name, result in results.items()}
    nets, deep = ([row for name, row in rows.items() if name.startswith(kind)] for kind in ("net-", "depth-"))
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "threads": 1, "device": "cpu"}
    write_json(options.output / "table.json", {"versions": versions, "machine": machine, "nets": nets, "depths": deep})
    text = markdown(nets, deep)
    partial_file = options.output / ".table.md"
    partial_file.write_text(text)
    partial_file.replace(options.output / "table.md")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
