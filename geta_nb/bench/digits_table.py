"""Print the digits table of the README: ``python -m geta_nb.bench.digits_table`` (or ``make bench-digits``).

Published figures, narrower fp32 networks, our defaults, the paper's own rules, and what each changed default brings; means over
seeds 0, 1, 2. About sixty runs of half a minute to a minute in two worker processes; each is kept, so a killed command resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from geta_nb.bench.digits import EPOCHS
from geta_nb.bench.digits_rows import (
    ABLATION,
    ACTIVATION_TARGET,
    OFFICIAL,
    OFFICIAL_SOURCE,
    OURS,
    PAPER,
    TARGETS,
    WIDTHS,
    Recipe,
    compressed_run,
    dense_run,
)
from geta_nb.bench.jobs import Job, run_jobs, write_json

Results = Mapping[str, Mapping[str, Any]]


def dense_jobs(seeds: Iterable[int], epochs: int) -> dict[str, Job]:
    """Jobs of the fp32 networks, the full one and the narrower ones, by ``dense-<width>-s<seed>``."""
    return {
        f"dense-{width}-s{seed}": Job(dense_run, {"seed": seed, "width": width, "epochs": epochs})
        for seed in seeds
        for width in (1.0, *WIDTHS.values())
    }


def recipe_jobs(name: str, recipe: Recipe, seeds: Iterable[int], epochs: int) -> dict[str, Job]:
    """Jobs of one recipe at each of its targets, by ``<name>-<target>-s<seed>``."""
    targets = [(target, False) for target in recipe.targets] + [(ACTIVATION_TARGET, True)] * recipe.activations
    options = {"rules": dict(recipe.rules), "paper_stages": recipe.paper_stages, "epochs": epochs}
    return {
        f"{name}-{target}-s{seed}": Job(compressed_run, {"seed": seed, "relative_bops": target, "activations": activations} | options)
        for seed in seeds
        for target, activations in targets
    }


def all_jobs(seeds: Sequence[int], epochs: int) -> dict[str, Job]:
    """Every job of the table."""
    jobs = dense_jobs(seeds, epochs)
    for name, recipe in {"ours": OURS, "paper": PAPER, **ABLATION}.items():
        jobs |= recipe_jobs(name, recipe, seeds, epochs)
    return jobs


def summary(results: Results) -> list[dict[str, Any]]:
    """Return means over seeds, one entry per row and target, in the order the jobs were given."""
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for name, result in results.items():
        cells.setdefault(name.rpartition("-s")[0], []).append(result)
    return [{"row": name.rpartition("-")[0], "at": float(name.rpartition("-")[2])} | _means(runs) for name, runs in cells.items()]


def _means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    facts: dict[str, Any] = {"seeds": [run["seed"] for run in runs], "accuracies": [run["accuracy"] for run in runs]}
    for key in ("accuracy", "relative_bops", "relative_bops_full", "group_sparsity", "seconds"):
        if key in runs[0]:
            facts[key] = fmean(run[key] for run in runs)
    sizes = [run["size_bytes"] for run in runs]
    facts["size_bytes"] = fmean(size["subnet"] if isinstance(size, Mapping) else size for size in sizes)
    return facts


def markdown(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the two tables as markdown: against others, then the ablation. A cell reads ``accuracy at relative BOPs``."""
    cells = {(entry["row"], entry["at"]): entry for entry in entries}
    columns = (*TARGETS, ACTIVATION_TARGET)
    head = [f"{_percent(1)} (dense)", *(_percent(target) for target in TARGETS), f"weights and activations, {_percent(ACTIVATION_TARGET)}"]
    narrow = {target: cells.get(("dense", width)) for target, width in WIDTHS.items()}
    rows = [
        ["official code *", *(f"{100 * OFFICIAL[column]:.1f}" for column in (1.0, *columns))],
        ["narrower fp32 networks, from scratch", _cell(cells.get(("dense", 1.0))), *(_cell(narrow.get(c)) for c in columns)],
        *([recipe.label, "", *(_cell(cells.get((name, c))) for c in columns)] for name, recipe in {"ours": OURS, "paper": PAPER}.items()),
    ]
    ablation = [[OURS.label, *(_cell(cells.get(("ours", c))) for c in TARGETS[1:])]]
    ablation += [[recipe.label, *(_cell(cells.get((name, c))) for c in TARGETS[1:])] for name, recipe in ABLATION.items()]
    first = _table(["test accuracy (%) at relative BOPs of at most", *head], rows)
    second = _table(["one default changed back; at most", *(_percent(target) for target in TARGETS[1:])], ablation)
    return f"{first}\n\n\\* {OFFICIAL_SOURCE}.\n\n{second}\n"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def _cell(entry: Mapping[str, Any] | None) -> str:
    return f"{100 * entry['accuracy']:.1f} at {_percent(entry['relative_bops'])}" if entry else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, write ``table.json`` and ``table.md``, print the markdown."""
    parser = argparse.ArgumentParser(description="The digits benchmark: accuracy at equal cost.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_digits"), help="folder of results and tables")
    parser.add_argument("--quick", action="store_true", help="one seed and four epochs: does everything run?")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    options = parser.parse_args(arguments)
    seeds, epochs = ((0,), 4) if options.quick else ((0, 1, 2), EPOCHS)
    results = run_jobs(all_jobs(seeds, epochs), options.output / "runs", workers=options.workers, title="digits")
    entries = summary(results)
    title = "quick" if options.quick else "table"
    head = {"epochs": epochs, "torch": torch.__version__, "official": {str(k): v for k, v in OFFICIAL.items()}, "source": OFFICIAL_SOURCE}
    write_json(options.output / f"{title}.json", head | {"entries": entries})
    text = markdown(entries)
    (options.output / f"{title}.md").write_text(text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
