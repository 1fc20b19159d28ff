"""How fast the networks of the language-model table generate: torch, ONNX Runtime and OpenVINO, each with its cache of keys and values.

In: a finished run's file. Out: tokens a second of one row, and whether all three say the same tokens. Runtimes take turns; one thread
each; processor time of this process, so that what else the machine does counts as little as can be.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.baselines import slicegpt
from geta_nb.bench.lm_run import DENSE, ROWS, network_file
from geta_nb.bench.lm_task import SIZES, Size, network, read_text, trained_dense
from geta_nb.files import load
from geta_nb.latency.decoding import RUNTIMES, Decoder, Generated, generate_in_torch
from geta_nb.onnx import dense_decoder, export_decoder

PROMPT, NEW, ROUNDS = 16, 48, 3
TORCH = "torch"


def open_network(row: str, column: str, size: Size, folder: Path) -> nn.Module:
    """Return the network of a finished run, seed 0, in the classes that generate."""
    if row == DENSE:
        return trained_dense(size, folder / "dense")
    file, model = network_file(folder, row, column, 0), network(size)
    if ROWS[row].cut == "slicegpt":
        width = load(file).state_dict()["model.embed_tokens.weight"].shape[1]
        whole = torch.eye(size.hidden, dtype=torch.float64)
        model = slicegpt.sliced(model, [whole] * len(slicegpt.norms_of(model)), width)
    return load(file, model=model).eval()


def lm_speed(row: str, column: str, *, size: str, folder: str) -> dict[str, Any]:
    """Return tokens a second by runtime, bytes of the ONNX file, and the share of tokens that are torch's.

    Args:
        row, column: of a finished run.
        size: a name of ``lm_task.SIZES``.
        folder: of the finished networks; the ONNX file is written beside them.
    """
    numbers, place = SIZES[size], Path(folder)
    net = open_network(row, column, numbers, place)
    prompt = read_text(numbers).test.held[:1, :PROMPT]
    path = place / "onnx" / f"{row}-{column}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    (dense_decoder if row == DENSE else export_decoder)(net, path, prompt)
    decoders = {runtime: Decoder(path, runtime=runtime) for runtime in RUNTIMES}
    rounds = [_round(net, decoders, prompt, min(NEW, numbers.length - PROMPT)) for _ in range(ROUNDS)]
    speeds = {name: median(found[name].tokens_per_second for found in rounds) for name in rounds[0]}
    said = rounds[0][TORCH].tokens
    same = {name: float((found.tokens == said).mean()) for name, found in rounds[0].items() if name != TORCH}
    return {"tokens_per_second": speeds, "same_tokens": same, "onnx_bytes": path.stat().st_size}


def _round(net: nn.Module, decoders: dict[str, Decoder], prompt: Tensor, new: int) -> dict[str, Generated]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {TORCH: generate_in_torch(net, prompt, new)} | {name: opened.generate(prompt, new) for name, opened in decoders.items()}
    finally:
        torch.set_num_threads(threads)
