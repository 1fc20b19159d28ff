"""torch-pruning in the side by side: magnitude pruning to the budget's share of multiply-accumulates, then training; weights stay fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from geta_nb.bench.peers import Given, Made, in_torch, optional, price


def user_code(given: Given) -> Any:
    """Prune step by step until the multiply-accumulates are at the budget, then train what is left."""
    tp = optional("torch_pruning")
    model, example = given.model, given.images[:1]
    dense_macs, _ = tp.utils.count_ops_and_params(model, example)
    pruner = tp.pruner.MagnitudePruner(
        model, example, importance=tp.importance.MagnitudeImportance(p=2), iterative_steps=100, pruning_ratio=1.0,
        max_pruning_ratio=0.95, ignored_layers=[model.get_submodule("classes")],
    )  # fmt: skip
    while tp.utils.count_ops_and_params(model, example)[0] > given.relative_bops * dense_macs and pruner.current_step < 100:
        pruner.step()
    given.train(model)
    file = given.file.with_suffix(".pt")
    torch.save(model, file)
    return model, file


def describe(product: Any, given: Given, dense: nn.Module) -> Made:
    """Return what came out."""
    model, file = product
    return Made(in_torch(model), price(model, dense), [file], "torch")
