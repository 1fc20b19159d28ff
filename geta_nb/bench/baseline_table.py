"""Print the table of baselines: ``python -m geta_nb.bench.baseline_table`` (or ``make bench-baselines``).

Eight methods and GETA on digits, each at the same relative BOPs, seeds 0, 1, 2. Each run is kept the moment it is there, so a killed
command resumes. Leaves ``table.json``, ``table.md``, ``pareto.svg`` and ``baselines.md`` (the page docs/baselines.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from geta_nb.bench.baseline_rows import COLUMNS, CREDIT, METHODS, OURS, baseline_run, geta_run
from geta_nb.bench.digits import EPOCHS
from geta_nb.bench.jobs import Job, kept_results, run_jobs, write_json
from geta_nb.display.pareto import Curve, pareto_picture

Key = tuple[str, float, bool]
HARD, SEEDS = 0.016, 3
CREDITED = frozenset({"clipq"})
"""Rows whose cost counts scattered zeros as free."""


def job_name(row: str, target: float, activations: bool, seed: int) -> str:
    """Return the name of one run: ``lsq-0.008a-s0``."""
    return f"{row}-{target}{'a' if activations else 'w'}-s{seed}"


def all_jobs(seeds: Sequence[int], epochs: int) -> dict[str, Job]:
    """Return every run of the table, column by column, the hardest first."""
    jobs: dict[str, Job] = {}
    for target, activations in sorted(COLUMNS, key=lambda column: (column[0] > HARD, -column[0])):
        for seed in seeds:
            common: dict[str, Any] = {"seed": seed, "relative_bops": target, "activations": activations, "epochs": epochs}
            for name, method in METHODS.items():
                arguments = common | {"method": name, "options": dict(method.options)}
                jobs[job_name(name, target, activations, seed)] = Job(baseline_run, arguments)
            for name, (_, extra) in OURS.items():
                if not extra or target <= HARD:
                    jobs[job_name(name, target, activations, seed)] = Job(geta_run, {**common, **extra})
    return jobs


def summary(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per row and column: means over seeds, or why there is none."""
    cells: dict[Key, list[Mapping[str, Any]]] = {}
    for name, result in results.items():
        row, column, _ = name.rsplit("-", 2)
        cells.setdefault((row, float(column[:-1]), column.endswith("a")), []).append(result)
    return [{"row": row, "at": at, "activations": a} | _means(runs) for (row, at, a), runs in cells.items()]


def _means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if any("out_of_reach" in run for run in runs):
        return {"out_of_reach": next(run["out_of_reach"] for run in runs if "out_of_reach" in run)}
    accuracies = [run["accuracy"] for run in runs]
    sizes = [size["subnet"] if isinstance(size := run["size_bytes"], Mapping) else size for run in runs]
    return {
        "seeds": [run["seed"] for run in runs],
        "accuracies": accuracies,
        "accuracy": fmean(accuracies),
        "deviation": stdev(accuracies) if len(runs) > 1 else 0.0,
        "relative_bops": fmean(run["relative_bops"] for run in runs),
        "size_bytes": fmean(sizes),
    }


def cells_of(entries: Iterable[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """Return (row, relative BOPs, activations) -> entry."""
    return {(entry["row"], entry["at"], entry["activations"]): entry for entry in entries}


def labels() -> dict[str, str]:
    """Return row -> its words, GETA last."""
    return {name: method.label for name, method in METHODS.items()} | {name: words for name, (words, _) in OURS.items()}


def has_all_seeds(entry: Mapping[str, Any]) -> bool:
    """Whether a cell is the mean of all seeds; others are shown, but compared with nothing."""
    return len(entry.get("seeds", ())) == SEEDS


def markdown(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the compact table: accuracy in per cent, mean and deviation over seeds, and the best of each column in bold."""
    cells = cells_of(entries)
    unfinished = {(at, a) for (_, at, a), entry in cells.items() if "seeds" in entry and not has_all_seeds(entry)}
    whole = {key: entry for key, entry in cells.items() if has_all_seeds(entry) and key[1:] not in unfinished}
    best = {column: max((e["accuracy"] for (_, *c), e in whole.items() if tuple(c) == column), default=2.0) for column in COLUMNS}
    head = ["test accuracy (%) at relative BOPs of at most", *(f"{100 * t:.2g} %{', with activations' if a else ''}" for t, a in COLUMNS)]
    rows = [[words, *(_cell(cells.get((row, *column)), best[column]) for column in COLUMNS)] for row, words in labels().items()]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n\\* {CREDIT}.\n"


def _cell(entry: Mapping[str, Any] | None, best: float) -> str:
    if entry is None:
        return ""
    if "out_of_reach" in entry:
        return "out of reach"
    words = f"{100 * entry['accuracy']:.1f} ± {100 * entry['deviation']:.1f}"
    words = f"**{words}**" if entry["accuracy"] == best else words
    return words if len(entry["seeds"]) == SEEDS else f"{words} (seeds {', '.join(map(str, entry['seeds']))} alone)"


def verdict(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence per column: GETA beside the best of the others."""
    cells, words = cells_of(entry for entry in entries if has_all_seeds(entry)), labels()
    partial = {key for key, entry in cells_of(entries).items() if "seeds" in entry and not has_all_seeds(entry)}
    lines = []
    for target, activations in COLUMNS:
        others = {row: e for (row, *c), e in cells.items() if tuple(c) == (target, activations) and row not in OURS}
        ours = cells.get(("geta", target, activations))
        if not others or ours is None:
            continue
        if any((row, target, activations) in partial for row in METHODS):
            lines.append(f"{100 * target:.2g} %: not decided, for runs of other methods are missing.")
            continue
        column = f"{100 * target:.2g} %{', weights and activations' if activations else ', weights'}"
        line = f"{column}: GETA {100 * ours['accuracy']:.1f}, the best of the others {_beside(ours, others, words)}"
        if max(others, key=lambda name: others[name]["accuracy"]) in CREDITED:
            plain = {row: entry for row, entry in others.items() if row not in CREDITED}
            line += f"; of those whose zeros are whole channels, {_beside(ours, plain, words)}"
        lines.append(f"{line}.")
    return lines


def _beside(ours: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], words: Mapping[str, str]) -> str:
    """Return the best of ``others``, and how far GETA is from it."""
    row = max(others, key=lambda name: others[name]["accuracy"])
    gap = 100 * (ours["accuracy"] - others[row]["accuracy"])
    side = "ahead of" if gap > 0 else "level with" if gap == 0 else "behind"
    return f"{100 * others[row]['accuracy']:.1f} ({words[row].removesuffix(' *')}), {side} it by {abs(gap):.1f} points"


def picture(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the Pareto picture: relative BOPs against error, one small chart per method, GETA in each."""
    cells = cells_of(entries)
    curves = {}
    for row, words in labels().items():
        points = [
            (entry["relative_bops"], 1 - entry["accuracy"], column[1])
            for column in COLUMNS
            if (entry := cells.get((row, *column))) is not None and "accuracy" in entry
        ]
        curves[row] = Curve(words.removesuffix(" *"), points)
    return pareto_picture(curves["geta"], [curve for row, curve in curves.items() if row != "geta" and curve.points])


def complete(entries: Iterable[Mapping[str, Any]]) -> bool:
    """Whether every cell that the command fills is there with every seed."""
    there = {(e["row"], e["at"], e["activations"]) for e in entries if "out_of_reach" in e or has_all_seeds(e)}
    wanted = {tuple(name.rsplit("-", 2)[:2]) for name in all_jobs((0,), EPOCHS)}
    return wanted <= {(row, f"{at}{'a' if activations else 'w'}") for row, at, activations in there}


def page(entries: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """Return docs/baselines.md."""
    tried = "\n".join(f"| {m.label.removesuffix(' *')} | {dict(m.options) or ''} | {m.tried} |" for m in METHODS.values())
    found = "\n".join(f"- {line}" for line in verdict(entries))
    reached = [e["out_of_reach"].splitlines() for e in entries if "out_of_reach" in e]
    causes = "\n".join(dict.fromkeys(f"- {' '.join(part.strip() for part in lines)}" for lines in reached)) or "- none"
    facts = {"found": found, "tried": tried, "causes": causes, "epochs": epochs, "torch": torch.__version__}
    return PAGE.format(blank="" if complete(entries) else UNFINISHED, table=markdown(entries), **facts)


UNFINISHED = """
Blank cells, and seeds that are not named, had not been run when this page was made; only cells with all seeds are compared.
"""

PAGE = """# Baselines at equal cost

What one would do instead of GETA, on the digits benchmark (`geta_nb/bench/digits.py`: a network of 82 000 parameters), made by
`make bench-baselines`. All methods have the same network, the same {epochs} epochs in all (a method that compresses a trained
network spends its share of them on training it), the same batches, optimizer and weight decay; all costs are relative BOPs in the
paper's counting over the dense fp32 network, by this package's cost model. Means and standard deviations over seeds 0, 1, 2; of
360 test images one is 0.28 points. Each method is one file in `geta_nb/baselines/`, with its formulas and its source.

{table}{blank}
![Relative BOPs against error: GETA beside each method](images/baselines.svg)

## What comes out

{found}

Out of reach:
{causes}

## How to read it

- **Most of these differences are within the seeds' deviations**, of 360 images; the page that can tell is [Fashion-MNIST](fashion.md).
  With weights alone CLIP-Q is ahead at 3.2 and 1.6 % by the credit described next; of the methods that remove whole channels GETA and DJPQ
  are level at 3.2 %, GETA is ahead at 1.6 %, and by a point more where it may go below 4 bits, as LSQ, DJPQ and Bayesian Bits do (its
  second row). With activations at 0.8 % GETA is ahead.
- CLIP-Q's zeros are scattered over its weights: no channel goes, and its BOPs are low because each zero is counted as free. Without that
  credit its 3-bit weights cost 9.4 % at any sparsity.
- LSQ and min-max PTQ prune nothing: with fp32 inputs 2 bits are the end, at 6.25 %. With quantized inputs the same budget buys LSQ
  2-bit weights times 4-bit inputs in every channel, where GETA's default schedule stops at 4 bits and has to remove channels.
- Magnitude pruning and EagleEye choose all channels at once: at 1.6 % only 6 % of the multiply-accumulates are left, and what is pruned at
  such a rate reads near chance before fine-tuning, by which EagleEye can rank nothing.

## What was chosen, and how

Options were chosen on a validation part of the training images (seed 0, at 1.6 % with weights and 0.8 % with activations), never
on the test images. GETA's options are the package's defaults.

| method | options | tried |
|---|---|---|
{tried}

Where a method departs from its source, its file says so. Three departures matter here. DJPQ and Bayesian Bits find the weight of
their regulariser by training many networks; here it follows the budget within one run. CLIP-Q seeks bits and sparsity of each
layer by Bayesian optimisation; here one pair serves all. The pruning methods end with 8-bit rounding, so that they may keep four
times (with activations sixteen times) the multiply-accumulates. Measured with torch {torch} on one CPU thread.

What each method can be given of signs and starts beyond its paper: [Fashion-MNIST](fashion.md#signs-and-starts-what-each-method-is-given).
Of that only DJPQ's unsigned inputs are on here.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, write tables and picture, print the markdown."""
    parser = argparse.ArgumentParser(description="Baselines on digits: accuracy at equal cost.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_baselines"), help="folder of results and tables")
    parser.add_argument("--quick", action="store_true", help="one seed and two epochs: does everything run?")
    parser.add_argument("--kept", action="store_true", help="run nothing: tables of the results that are there")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    options = parser.parse_args(arguments)
    seeds, epochs = ((0,), 2) if options.quick else ((0, 1, 2), EPOCHS)
    jobs, folder = all_jobs(seeds, epochs), options.output / "runs"
    results = kept_results(jobs, folder) if options.kept else run_jobs(jobs, folder, workers=options.workers, title="baselines")
    entries = summary(results)
    facts = {"epochs": epochs, "torch": torch.__version__, "entries": entries, "verdict": verdict(entries)}
    write_json(options.output / "table.json", facts)
    for name, text in (("table.md", markdown(entries)), ("pareto.svg", picture(entries)), ("baselines.md", page(entries, epochs))):
        (options.output / name).write_text(text)
    sys.stdout.write(markdown(entries) + "\n" + "\n".join(verdict(entries)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
