"""Which rate the further training of the language-model table takes: ``python -m geta_nb.bench.lm_rates``. By validation text alone.

One rate serves all rows, so the dense network, GETA and two cuts are each tried with every rate; the table takes the one whose perplexities
are lowest by their geometric mean. Each result is kept, so a stopped command goes on.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from geta_nb.bench.jobs import Job, run_jobs
from geta_nb.bench.lm_run import DENSE, ROWS, lm_validation
from geta_nb.bench.lm_task import SIZES, TUNE_RATE, trained_dense

RATES = (5e-5, 1e-4, 2e-4, 4e-4)
TRIED = (DENSE, "geta", "magnitude_same", "llm_pruner_same")


def jobs_of(rates: Sequence[float], column: str, size: str, folder: Path) -> dict[str, Job]:
    """Return a job for each row and rate."""
    return {
        f"{row}-{rate:g}": Job(lm_validation, {"row": row, "column": column, "rate": rate, "size": size, "folder": str(folder)})
        for rate in rates for row in TRIED
    }  # fmt: skip


def best(found: Mapping[str, Mapping[str, float]], rates: Sequence[float]) -> float:
    """Return the rate with the lowest geometric mean of perplexities.

    >>> best({f"{row}-{rate:g}": {"after": 9 - rate} for row in TRIED for rate in (1.0, 2.0)}, (1.0, 2.0))
    2.0
    """
    return min(rates, key=lambda rate: mean(math.log(found[f"{row}-{rate:g}"]["after"]) for row in TRIED))


def markdown(found: Mapping[str, Mapping[str, float]], rates: Sequence[float]) -> str:
    """Return validation perplexities by row and rate, a line a row."""
    lines = [["validation perplexity at a rate of", *(f"{rate:g}" for rate in rates)], ["---"] * (1 + len(rates))]
    for row in TRIED:
        label = ROWS[row].label if row in (DENSE, "geta") else f"{ROWS[row].label}, 3 of 5 parameters left"
        lines.append([label, *(f"{found[f'{row}-{rate:g}']['after']:.2f}" for rate in rates)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(description="The rate of the language-model table's further training, by validation text.")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_lm"), help="folder of networks and results, lm_table's")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--column", default="s35", help="of GETA")
    parser.add_argument("--smoke", action="store_true", help="a tiny network: does everything run?")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    options = parser.parse_args(arguments)
    size, folder = ("smoke", options.output / "smoke") if options.smoke else ("full", options.output)
    trained_dense(SIZES[size], folder / "dense", say=_say)
    found = run_jobs(jobs_of(options.rates, options.column, size, folder), folder / "rates", workers=options.workers, title="rates")
    sys.stdout.write(markdown(found, options.rates))
    sys.stdout.write(f"lowest: {best(found, options.rates):g}; the table takes {TUNE_RATE:g}\n")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
