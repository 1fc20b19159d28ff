"""What GETA's choice of channels and bits is worth by itself: a fresh network of the widths and bits that a run ended with.

First GETA compresses; its weights are thrown away. Then a network that has those widths from its first step is trained as long, by the same
optimizer, quantizers and falls of the bits, with nothing to prune. Where it ends as the first one did, pruning in training found widths
and nothing else; where it ends lower, the weights that the wide network had learned were worth something too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from geta_nb.baselines.space import Space
from geta_nb.baselines.task import Task
from geta_nb.bench.geta_run import HIGHEST, as_result, checked, settings_of, train
from geta_nb.budget import Budget, LayerBudget
from geta_nb.qasso import Schedule


def compress(task: Task, relative_bops: float, *, seed: int, activations: bool = False, bits: int | None = None) -> dict[str, Any]:
    """Return the facts of the network that was trained from scratch; arguments as for ``geta_run.compress_task``.

    Raises:
        BudgetError: out of reach, or, a defect, over the budget.
    """
    torch.manual_seed(seed)
    run, budget, quantize, schedule, rules = settings_of(task, relative_bops, seed=seed, activations=activations, bits=bits)
    first = train(task.build(), run, budget, quantize=quantize, schedule=schedule, rules=rules)
    facts = first.geta.report(first.geta.construct_subnet()).to_dict()
    torch.manual_seed(seed)
    fresh = fresh_network(Space(task).cut(task.build(), first.optimizer.group_mask))
    same = down_to(facts["bit_widths"], facts["activation_bit_widths"])
    again = train(fresh, run, same, quantize=quantize, schedule=without_pruning(schedule), rules=rules)
    subnet = again.geta.construct_subnet()
    found = again.geta.report(subnet).to_dict()
    measured = facts | {key: found[key] for key in ("bit_widths", "activation_bit_widths")} | {"accuracy": run.evaluate(subnet)}
    return checked(as_result(measured, {"widths": widths(subnet)}), relative_bops, run.total_steps)


def fresh_network(model: nn.Module) -> nn.Module:
    """Return the network with all layers initialised anew, from torch's global generator."""
    for module in model.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return model


def down_to(weights: dict[str, float], inputs: dict[str, float]) -> Budget:
    """Return a budget that removes nothing and lets the bits of every layer fall to those given, from where a run begins."""
    exceptions = {}
    for layer, bits in weights.items():
        other = (int(inputs[layer]), HIGHEST) if layer in inputs else None
        exceptions[layer] = LayerBudget(bit_range=(int(bits), HIGHEST), activation_bit_range=other)
    return Budget(group_sparsity=0.0, exceptions=exceptions)


def without_pruning(schedule: Schedule) -> Schedule:
    """Return the schedule's warm-up and projection alone."""
    return Schedule(**(asdict(schedule) | {"joint_steps": 0, "joint_periods": 0, "joint_start": None}))


def widths(model: nn.Module) -> dict[str, int]:
    """Return layer -> output channels of convolutions and linear layers."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    return {name: module.out_channels if isinstance(module, nn.Conv2d) else module.out_features for name, module in layers.items()}
