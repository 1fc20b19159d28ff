"""What ``gt.GETA(model, inputs)`` takes in units of one plain run of torch's exporter, and what a second one takes of the first.

``python -m geta_nb.bench.analysis_again [--nets resnet50 flat] [--rounds 3] [--kept FILE]``. In: nothing, or a file of rounds that were
measured before, from which it goes on. Out: a table: seconds of processor time of ``torch.export.export`` with the batch axis free, which
GETA asks for, and of each mode; medians over rounds in which all take turns in one process with one thread. ``flat`` is a plain chain of a
thousand linear layers.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.bench.analysis_speed import MODES
from geta_nb.bench.speed_nets import NETS

FLAT = 1000


def flat() -> nn.Module:
    """Return a chain of linear layers, each with its activation."""
    return nn.Sequential(*(layer for _ in range(FLAT) for layer in (nn.Linear(16, 16), nn.ReLU())))


def rows() -> tuple[Tensor, ...]:
    """Return inputs of the chain."""
    return (torch.randn(2, 16),)


BUILDS: dict[str, tuple[str, Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    **{name: (net.label, net.build, net.inputs) for name, net in NETS.items()}, "flat": (f"a chain of {FLAT}", flat, rows)
}


def seconds(run: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    gc.collect()
    begin = time.process_time()
    run()
    return time.process_time() - begin


def plain_export(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Run torch's exporter alone: no batch axis of one, which it would bind."""
    batch = tuple(torch.cat([x, x]) if len(x) == 1 else x for x in inputs)
    with torch.no_grad():
        torch.export.export(model, batch, dynamic_shapes=tuple({0: torch.export.Dim.AUTO} for _ in batch), strict=False)


def measure(net: str) -> dict[str, float]:
    """Return seconds of one round by what was run: the exporter, each mode, and each mode once more on the same model."""
    _, build, make = BUILDS[net]
    model, inputs = build().eval(), make()
    found = {"export": seconds(partial(plain_export, model, inputs))}
    for mode, config in MODES.items():
        model, inputs = build().eval(), make()
        for name in (mode, f"{mode}, again"):
            found[name] = seconds(partial(gt.GETA, model, inputs, quantize=config))
    return found


def rounds_of(net: str, rounds: int, kept: Path | None) -> list[dict[str, float]]:
    """Return rounds of a network: those that are kept, and as many more as are asked for."""
    known = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    found: list[dict[str, float]] = known.setdefault(net, [])
    while len(found) < rounds:
        found.append(measure(net))
        if kept is not None:
            kept.write_text(json.dumps(known, indent=1))
    return found[:rounds]


def row(net: str, rounds: Sequence[dict[str, float]]) -> str:
    """Return a line of the table."""
    whole = {name: median(found[name] for found in rounds) for name in rounds[0]}
    cells = [BUILDS[net][0], f"{whole['export']:.2f}"]
    for mode in MODES:
        cells += [f"{whole[mode]:.2f} ({whole[mode] / whole['export']:.2f})", f"{whole[f'{mode}, again'] / whole[mode]:.0%}"]
    return f"| {' | '.join(cells)} |\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=sorted(BUILDS), default=list(BUILDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kept", type=Path, help="file in which rounds are kept as they come")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # what is imported on first use is not measured
    gt.GETA(nn.Sequential(nn.Linear(16, 16), nn.ReLU()), rows(), quantize=gt.QuantConfig(activations=True))
    head = ["network", "exporter", *(cell for mode in MODES for cell in (f"{mode} (times)", "again"))]
    sys.stdout.write(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}\n")
    for net in options.nets:
        sys.stdout.write(row(net, rounds_of(net, options.rounds, options.kept)))
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
