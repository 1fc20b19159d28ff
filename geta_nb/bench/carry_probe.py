"""What one version of the package makes of some runs: started by ``carry`` as a script, with that version on the path.

In: a file of asks, [method, column, options, full] a line, and the data's folder. Out: a JSON line each on stdout: the fingerprint, and
the figures, the accuracy replaced by a hash of the network's outputs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geta_nb.baselines.space import Space
from geta_nb.bench import fashion_run
from geta_nb.bench.fashion_task import fashion_task

EPOCHS = 32
"""Of a short run, on 512 images: 128 steps, enough for every stage."""


def answer(folder: Path, method: str, column: str, options: dict[str, Any], full: bool) -> dict[str, Any]:
    """Make one run; see ``carry``."""
    task = fashion_task(folder, validation=True, smoke=not full)
    images = task.check[0][:512]

    @torch.no_grad()
    def hashed(model: nn.Module) -> float:
        found = model.eval()(images).contiguous()
        return int(hashlib.sha256(found.numpy().tobytes()).hexdigest()[:12], 16) / 16**12

    task = replace(task, evaluate=hashed, epochs=task.epochs if full else EPOCHS)
    fashion_run._task = lambda *_: (task, Space(task))  # type: ignore[assignment]  # the same run, judged by bits
    fingerprint = fashion_run.what_decides(method, column, options)
    figures = fashion_run.fashion_run(method, column, 0, options, folder=str(folder), validation=True, fingerprint=fingerprint)
    return {"fingerprint": fingerprint, "figures": {key: value for key, value in figures.items() if key != "seconds"}}


def main(questions: Path, folder: Path) -> None:
    """Answer all asks of a file."""
    torch.set_num_threads(1)
    asks = [json.loads(line) for line in questions.read_text().splitlines()]
    for number, (method, column, options, full) in enumerate(asks, start=1):
        sys.stderr.write(f"\r{number} of {len(asks)}: {method} at {column}{', full length' if full else ''}".ljust(70))
        sys.stderr.flush()
        sys.stdout.write(json.dumps(answer(folder, method, column, options, full), sort_keys=True) + "\n")
        sys.stdout.flush()
    sys.stderr.write("\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
