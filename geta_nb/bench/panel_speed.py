"""How fast the budget panel answers on BERT-base: ``python -m geta_nb.bench.panel_speed`` prints milliseconds from a form to its answer."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

import geta_nb as gt

WANTED = 50.0
"""Milliseconds: half of the tenth of a second from hand to bars, the other half is for the way to the page and the drawing."""


def bert_base() -> gt.GETA:
    """Return BERT-base with weight quantizers; random weights, nothing is downloaded."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model: Any = BertModel(BertConfig())
    return gt.GETA(model.eval(), (torch.ones(1, 16, dtype=torch.int64),))


def answer_times(panel: Any, questions: int = 60) -> list[float]:
    """Return the sorted seconds that Python takes from a form to its answer, over sparsities and cost targets in turn."""
    seconds = []
    for i in range(questions):
        share = (i + 0.5) / questions
        mode, value = ("group_sparsity", 0.9 * share) if i % 2 else ("relative_bops", 0.02 + 0.1 * share)
        form: dict[str, Any] = {**panel.form, "mode": mode, mode: value, "sent": i + 1}
        begin = time.perf_counter()
        panel.form = form
        seconds.append(time.perf_counter() - begin)
    return sorted(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the median and the slowest answer."""
    parser = argparse.ArgumentParser(description="Time of the budget panel's answers on BERT-base, Python's part.")
    parser.add_argument("--questions", type=int, default=60)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    panel = gt.BudgetPanel(bert_base())
    seconds = answer_times(panel, options.questions)
    layers = len(panel.facts["layers"])
    median, slowest = 1000 * seconds[len(seconds) // 2], 1000 * seconds[-1]
    sys.stdout.write(f"{layers} layers, {options.questions} budgets: median {median:.1f} ms of {WANTED:.0f}, slowest {slowest:.1f} ms\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
