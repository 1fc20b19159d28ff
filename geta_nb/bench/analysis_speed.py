"""What ``gt.GETA(model, inputs)`` takes, and torch's exporter in it: ``python -m geta_nb.bench.analysis_speed [--against CHECKOUT]``.

In: nothing, or another checkout of this package to take turns with. Out: a table of seconds of processor time, the exporter's in brackets,
medians over rounds; each round of a network is a process of its own with one thread, in which a first analysis is not counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.bench.speed_nets import NETS

MODES = {"pruning only": None, "weights": gt.QuantConfig(), "weights and inputs": gt.QuantConfig(activations=True)}
SHOWN = ("resnet50", "bert_base", "llama12")
CHECKOUT = Path(__file__).resolve().parents[2]


def measure(build: Callable[[], nn.Module], inputs: Callable[[], tuple[Tensor, ...]]) -> dict[str, dict[str, float]]:
    """Return by mode the seconds of an analysis, those of torch's exporter in it, and how often that ran."""
    found = {}
    for mode in (next(reversed(MODES)), *MODES):  # the first one warms up
        model, example, spent = build().eval(), inputs(), [0.0, 0]
        export = torch.export.export

        def counted(*args: Any, spent: list[float] = spent, export: Any = export, **kwargs: Any) -> Any:
            begin = time.process_time()
            try:
                return export(*args, **kwargs)
            finally:
                spent[0] += time.process_time() - begin
                spent[1] += 1

        gc.collect()
        with patch.object(torch.export, "export", counted):
            begin = time.process_time()
            gt.GETA(model, example, quantize=MODES[mode])
            found[mode] = {"seconds": time.process_time() - begin, "exporter": spent[0], "exports": spent[1]}
    return found


def run(net: str, checkout: Path) -> dict[str, dict[str, float]]:
    """Measure a network with the package of a checkout, in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--one", net]
    ran = subprocess.run(command, cwd=checkout, env=env, check=True, capture_output=True, text=True)
    measured: dict[str, dict[str, float]] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def row(label: str, rounds: Sequence[dict[str, dict[str, float]]]) -> str:
    """Return a line of the table: seconds, and in brackets those of the exporter."""
    cells = [f"{median(r[mode]['seconds'] for r in rounds):.2f} ({median(r[mode]['exporter'] for r in rounds):.2f})" for mode in MODES]
    return f"| {' | '.join([label, *cells])} |\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of this package")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=sorted(NETS), help="measure one network in this process and print JSON")
    options = parser.parse_args(arguments)
    if options.one:
        torch.set_num_threads(1)
        sys.stdout.write(json.dumps(measure(NETS[options.one].build, NETS[options.one].inputs)) + "\n")
        return 0
    checkouts = {"here": CHECKOUT} | ({"there": options.against.resolve()} if options.against else {})
    sys.stdout.write(f"| network | {' | '.join(MODES)} |\n|{' --- |' * (len(MODES) + 1)}\n")
    for net in SHOWN:
        rounds: dict[str, list[Any]] = {name: [] for name in checkouts}
        for _ in range(options.rounds):
            for name, checkout in checkouts.items():
                rounds[name].append(run(net, checkout))
        for name, measured in rounds.items():
            sys.stdout.write(row(f"{NETS[net].label}, {name}", measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
