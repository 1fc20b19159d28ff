"""The authors' code in the side by side, when a user has a clone of it: imported from there, and only then.

Written after the public README of microsoft/geta (May 2025) and not run by this project, which does not carry that code: when its interface
is another one, the row says what went wrong. A BOPs target it does not know: group sparsity 0.5 is what came out nearest to 3 % on digits.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geta_nb.bench.peers import Given, Made, in_torch, price
from geta_nb.errors import InputError

PACKAGE = "only_train_once"


@contextmanager
def checkout_on_path(checkout: str | Path) -> Iterator[None]:
    """Import from a clone inside the block.

    Raises:
        InputError: there is no such package in that folder.
    """
    folder = Path(checkout).resolve()
    if not (folder / PACKAGE).is_dir():
        raise InputError("official_checkout: not a clone of the authors' code.", at=folder, expected=f"a folder with {PACKAGE}/")
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def user_code(given: Given, checkout: str | Path = "") -> Any:
    """Quantize, prune and train as the README shows."""
    with checkout_on_path(checkout):
        oto_class = importlib.import_module(PACKAGE).OTO
        to_quantized = importlib.import_module(f"{PACKAGE}.quantization.quant_model").model_to_quantize_model
        model = to_quantized(given.model)
        oto = oto_class(model=model, dummy_input=given.images[:1])
        optimizer = oto.geta(
            variant="adam", lr=1e-3, lr_quant=1e-3, weight_decay=1e-4, target_group_sparsity=0.5, bit_reduction=2, min_bit_wt=4,
            max_bit_wt=16, start_projection_step=0, projection_periods=5, projection_steps=given.steps * 8 // 30,
            start_pruning_step=given.steps * 8 // 30, pruning_periods=5, pruning_steps=given.steps * 10 // 30,
        )  # fmt: skip
        given.train(model, optimizer)
        oto.construct_subnet(out_dir=str(given.file.parent))
        return torch.load(oto.compressed_model_path, weights_only=False), Path(oto.compressed_model_path)


def describe(product: Any, given: Given, dense: nn.Module) -> Made:
    """Return what came out; its weights are counted at 32 bits, for its file holds them so."""
    model, file = product
    return Made(in_torch(model), price(model, dense), [file], "torch")
