"""geta-nb in the side by side: pruning and mixed precision in the one training run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import geta_nb as gt
from geta_nb.bench.peers import Given, Made, in_torch


def user_code(given: Given) -> Any:
    """Compress to the budget and save."""
    geta = gt.GETA(given.model, given.images[:2])
    budget, schedule = gt.Budget(relative_bops=given.relative_bops), gt.Schedule.for_steps(given.steps)
    optimizer = geta.qasso(torch.optim.Adam, lr=1e-3, weight_decay=1e-4, budget=budget, schedule=schedule)
    given.train(given.model, optimizer)
    subnet = geta.construct_subnet()
    file = given.file.with_suffix(".safetensors")
    gt.save(subnet, file)
    return geta, subnet, file


def describe(product: Any, given: Given, dense: nn.Module) -> Made:
    """Return what came out."""
    geta, subnet, file = product
    facts = geta.report(subnet).to_dict()
    return Made(in_torch(subnet), facts["relative_bops"], [file], "torch", {"report": facts})
