"""One run of the language-model table: a row in a column, from names to JSON-able figures, its network kept as a file.

In: row, column, seed, size, the folder that holds the dense network. Out: perplexity of the test text before and after fine-tuning, of the
validation text after it, parameters, bits, bytes of the file that ``gt.save`` writes; or why it is out of reach. All rows train for the
same steps on the same batches; a row of GETA spends them on compressing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geta_nb.baselines import llm_pruner, slicegpt
from geta_nb.baselines.language import magnitude_cut, rounded
from geta_nb.bench.lm_task import (
    BETAS,
    LEARNING_RATE,
    SIZES,
    TUNE_RATE,
    WEIGHT_DECAY,
    Size,
    Text,
    adamw,
    fingerprint,
    judge,
    read_text,
    train,
    trained_dense,
    versions,
)
from geta_nb.bench.texts import next_token_loss
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import BudgetError
from geta_nb.files import save
from geta_nb.geta import GETA
from geta_nb.qasso import Schedule

DENSE = "dense"
COLUMNS: Mapping[str, float] = {"s20": 0.20, "s35": 0.35, "s50": 0.50}
"""Name -> share of all groups that GETA removes."""
LOWEST, HIGHEST, ROUNDED = 4, 16, 8
QUANTIZERS: Mapping[str, Any] = {"learn_exponent": False}
"""Of GETA: even steps, which is what runtimes read as 4-bit integers."""
CUTS: Mapping[str, Callable[..., nn.Module]] = {"magnitude": magnitude_cut, "llm_pruner": llm_pruner.cut, "slicegpt": slicegpt.cut}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        label: name in the table.
        cut: a name of :data:`CUTS`; "" for the dense network and for GETA.
        equal: what a cut has in common with GETA's network of its column: "bytes", so half as many weights at twice the bits, or
            "parameters".
    """

    label: str
    cut: str = ""
    equal: str = ""


ROWS: Mapping[str, Row] = {
    DENSE: Row("dense float32"),
    "geta": Row("GETA, 4 bits"),
    "magnitude_bytes": Row("one-shot magnitude, 8 bits", "magnitude", "bytes"),
    "llm_pruner_bytes": Row("LLM-Pruner's cut, 8 bits", "llm_pruner", "bytes"),
    "slicegpt_bytes": Row("SliceGPT's cut, 8 bits", "slicegpt", "bytes"),
    "magnitude_same": Row("one-shot magnitude, 8 bits", "magnitude", "parameters"),
    "llm_pruner_same": Row("LLM-Pruner's cut, 8 bits", "llm_pruner", "parameters"),
    "slicegpt_same": Row("SliceGPT's cut, 8 bits", "slicegpt", "parameters"),
}


def settings(row: str, column: str, size: str) -> str:
    """Return the fingerprint of what is asked for: sizes, steps, rates, options.

    Neither code nor versions are in it: the kept run says its commit, and its figures the versions.
    """
    rates = [LEARNING_RATE, TUNE_RATE, LOWEST, HIGHEST, ROUNDED, dict(QUANTIZERS) if row == "geta" else {}]
    facts = [asdict(ROWS[row]), COLUMNS.get(column), asdict(SIZES[size]), rates]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def network_file(folder: Path, row: str, column: str, seed: int) -> Path:
    """Return where a run's network lies."""
    return folder / "networks" / f"{row}-{column}-{seed}.safetensors"


def lm_run(row: str, column: str, seed: int, *, size: str, folder: str, parameters: int = 0) -> dict[str, Any]:
    """Make one run; JSON-able figures.

    Args:
        row: a name of :data:`ROWS`.
        column: a name of :data:`COLUMNS`, or ``"dense"``.
        seed: of the order of rows in the fine-tuning; the dense network is one for all.
        size: a name of ``lm_task.SIZES``.
        folder: of the dense network and the finished ones.
        parameters: at most so many, of a cut.
    """
    started, place, numbers = time.perf_counter(), Path(folder), SIZES[size]
    text, dense = read_text(numbers), trained_dense(numbers, place / "dense")
    try:
        made = _geta(dense, text, numbers, COLUMNS[column], seed) if row == "geta" else _tuned(row, dense, text, numbers, parameters, seed)
    except BudgetError as error:
        return {"out_of_reach": f"{error.what} expected {error.expected}, got {error.got}"}
    figures, net = made
    file = network_file(place, row, column, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {"file_bytes": save(net, file).stat().st_size} if row != DENSE else {"file_bytes": 4 * figures["parameters"]}
    after = {"test": judge(net, text.test), "validation": judge(net, text.validation)}
    known = {"text": fingerprint(text.rows, text.test.held), "versions": versions(), "seconds": round(time.perf_counter() - started, 1)}
    return figures | kept | {"after": after} | known


def count(net: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def lm_validation(row: str, column: str, rate: float, *, size: str, folder: str, seed: int = 0) -> dict[str, Any]:
    """Return the validation perplexity of a row at a rate of the further training; no test text is read.

    Args:
        row: ``"geta"``, ``"dense"``, or a cut, here to three fifths of the dense network's parameters.
        column: a name of :data:`COLUMNS`, of GETA.
        rate: instead of ``lm_task.TUNE_RATE``.
        size, folder, seed: as for :func:`lm_run`.
    """
    numbers, place = SIZES[size], Path(folder)
    text, dense = read_text(numbers), trained_dense(numbers, place / "dense")
    text = replace(text, test=text.validation)
    if row == "geta":
        figures, net = _geta(dense, text, numbers, COLUMNS[column], seed, rate=rate)
    else:
        figures, net = _tuned(row, dense, text, numbers, 3 * count(dense) // 5, seed, rate=rate)
    return {"before": figures["before"]["test"], "after": judge(net, text.validation)}


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, text: Text, size: Size, seed: int, **options: Any) -> None:
    train(model, optimizer, text.rows, batch=size.batch, steps=size.tune_steps, seed=100 + seed, **options)


def _tuned(
    row: str, dense: nn.Module, text: Text, size: Size, parameters: int, seed: int, *, rate: float = TUNE_RATE
) -> tuple[dict[str, Any], nn.Module]:
    """Cut, measure, fine-tune, round; "before" is before rounding too."""
    cut = ROWS[row].cut
    net = CUTS[cut](dense, text.rows, next_token_loss, parameters=parameters) if cut else dense
    before = judge(net, text.test)
    _train(net, adamw(net.parameters(), rate), text, size, seed)
    found = rounded(net, text.rows, ROUNDED) if cut else net
    return {"before": {"test": before}, "parameters": count(found), "bits": ROUNDED if cut else 32}, found


def _geta(
    dense: nn.Module, text: Text, size: Size, share: float, seed: int, *, rate: float = TUNE_RATE
) -> tuple[dict[str, Any], nn.Module]:
    """Compress by QASSO; "before" is the network when its last group has just gone, fine-tuning what is left of the steps."""
    geta = GETA(dense, text.rows[:1], quantize=QuantConfig(**QUANTIZERS))
    budget = Budget(group_sparsity=share, bit_range=(LOWEST, HIGHEST))
    optimizer = geta.qasso(
        torch.optim.AdamW, budget=budget, schedule=Schedule.for_steps(size.tune_steps), lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    before: dict[str, Any] = {}

    def after(step: int, _: float) -> None:
        if optimizer.stage == "cool-down" and not before:
            before.update(test=judge(dense, text.test), step=step)
            dense.train()

    _train(dense, optimizer, text, size, seed, after=after)
    net = geta.construct_subnet()
    report = geta.report(net).to_dict()
    figures = {"before": before, "parameters": count(net), "bits": LOWEST, "size_bytes": report["size_bytes"]["subnet"]}
    return figures | {"group_sparsity": report["group_sparsity"], "heads": _heads(net)}, net.eval()


def _heads(net: nn.Module) -> list[int]:
    """Return how many heads each layer has left."""
    return [layer.self_attn.q_proj.out_features // layer.self_attn.head_dim for layer in net.model.layers]  # type: ignore[union-attr]
