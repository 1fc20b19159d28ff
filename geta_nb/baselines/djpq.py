"""DJPQ: one loss for pruning by an information bottleneck and for learned bit widths.

Pruning: the output of group j is multiplied by z_j = mu_j + sigma_j e, e ~ N(0, 1) per sample (its mean mu_j when evaluated), with the cost
log(1 + mu_j**2 / sigma_j**2); a group without signal (mu**2 / sigma**2 small) is pruned. Quantization: per tensor

    x^Q = sgn(x) d round(min(|x|, q_m)**t / d)      b = log2(q_m**t / d + 1) + 1        with d, q_m and t learned

(an input that is never negative has no sign: b is one less)

    loss = cross-entropy + w (gamma mean_j log(1 + mu_j**2 / sigma_j**2) + log BOPs(keep, b))
    keep_j = sigmoid(log(mu_j**2 / sigma_j**2))

The quantizer is the core's, which has it from there. Source: Wang, Lu and Blankevoort 2020, arXiv:2007.10463, whose full text was not at
hand: the two parts and the quantizer are the paper's, the exact form of the BOPs term is our reading. w follows the budget in the run
(``gates.Pressure``); after ``joint_share`` of the phase bits are rounded, groups cut, and what is left trains on. Given beyond the paper:
unsigned inputs, and ``refit=True``: q_m of least squared error at the rounded bits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from geta_nb.baselines.attach import layer_inputs, split_parameters
from geta_nb.baselines.gates import (
    Pressure,
    family_scores,
    fold_gates,
    own_parameters,
    phases,
    place_gates,
    settle,
    train_masked,
)
from geta_nb.baselines.space import Space, check_met
from geta_nb.baselines.task import Result, Task, fit, pretrained
from geta_nb.config import QuantConfig
from geta_nb.quantizers import Histogram, Quantizer, attach_quantizers, bit_width, calibrate, fitted_clip, step_size
from geta_nb.quantizers import Quantizers as Attached

LOWEST, HIGHEST = 2, 16


class Bottleneck(nn.Module):
    """mu and log sigma**2 of every group, [G]."""

    def __init__(self, n_groups: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.ones(n_groups))
        self.log_variance = nn.Parameter(torch.full((n_groups,), -5.0))

    def log_ratio(self) -> Tensor:
        """Return log(mu**2 / sigma**2), [G]."""
        return self.mean.square().clamp(min=1e-12).log() - self.log_variance

    def cost(self) -> Tensor:
        """Return log(1 + mu**2 / sigma**2), [G]."""
        return nn.functional.softplus(self.log_ratio())

    def keep(self) -> Tensor:
        """Return the share of each group that lives, [G]: 1 with much signal, 0 with none."""
        return self.log_ratio().sigmoid()

    def factors(self, groups: Tensor, batch: int) -> Tensor:
        """Return z of these groups: [B, C] with noise while training, [1, C] without."""
        mean = self.mean[groups][None]
        if not self.training:
            return mean
        return mean + (0.5 * self.log_variance[groups]).exp() * torch.randn(batch, len(groups))


def learned_bits(quantizer: Quantizer) -> Tensor:
    """Return b, 0-dim, with its gradient."""
    return bit_width(quantizer.step_size, quantizer.clip_max, quantizer.exponent, signed=quantizer.signed)


@torch.no_grad()
def hold_bits(quantizer: Quantizer, low: float, high: float) -> None:
    """Keep q_m and t positive and d where b lies in [low, high], in place."""
    quantizer.clip_max.clamp_(min=1e-4)
    quantizer.exponent.clamp_(0.5, 2.0)
    top, bottom = (step_size(b, quantizer.clip_max, quantizer.exponent, signed=quantizer.signed) for b in (low, high))
    quantizer.step_size.copy_(quantizer.step_size.clamp(bottom, top))


Quantizers = dict[str, Quantizer]
LR_GATES, LR_QUANT, PRESSURE = 3e-2, 1e-3, 0.02


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, dense_share: float = 0.5,
    joint_share: float = 0.6, gamma: float = 0.3, lr_quant: float = LR_QUANT, refit: bool = False,
) -> Result:
    """Train in fp32 for ``dense_share`` of the epochs, learn gates and bits jointly, then train on at fixed groups and bits.

    Args:
        gamma: weight of the bottleneck beside the BOPs.
        lr_quant: learning rate of d, q_m and t; a tenth of it once bits are fixed.
        refit: q_m of least squared error once bits are fixed.

    Raises:
        BudgetError: out of reach.
    """
    space = space or Space(task)
    dense_epochs, joint_epochs, rest_epochs = phases(task, dense_share, joint_share)
    model = pretrained(task, seed, dense_epochs)
    torch.manual_seed(seed)
    found = attach_quantizers(model, QuantConfig(activations=activations, initial_bits=8))
    drop_signs(model, found, task.calibration)
    calibrate(model, found, task.calibration.split(64))
    weights: Quantizers = {layer: found.weights[layer] for layer in space.layers}
    inputs: Quantizers = {layer: found.activations[layer] for layer in space.layers if layer in found.activations}
    gates = learn(task, space, model, (weights, inputs), relative_bops, seed=seed, epochs=joint_epochs, gamma=gamma, lr_quant=lr_quant)
    scores = family_scores(gates.keep().detach().double().numpy(), space.table.family_of)
    alive, weight_bits, activation_bits = settle(
        space, scores, relative_bops, whole_bits(weights), whole_bits(inputs), lambda bits: max(bits - 1, LOWEST)
    )
    fold_gates(model, space.table, gates.mean.detach() * torch.as_tensor(alive, dtype=torch.float32))
    if refit:
        refit_ranges(model, (weights, weight_bits), (inputs, activation_bits), task.calibration)

    def hold() -> None:
        for quantizers, bits in ((weights, weight_bits), (inputs, activation_bits)):
            for layer, quantizer in quantizers.items():
                hold_bits(quantizer, bits[layer], bits[layer])

    groups = split_parameters(model, [*weights.values(), *inputs.values()], lr=lr_quant / 10)
    train_masked(task, space, model, alive, rest_epochs, seed=seed, groups=groups, also=hold)
    notes = {"closed": float(np.mean(scores < 0)), "groups": int(alive.sum())}
    return check_met(space.measure(model, alive, weight_bits, activation_bits, notes=notes), relative_bops, "DJPQ")


def learn(
    task: Task, space: Space, model: nn.Module, found: tuple[Quantizers, Quantizers], relative_bops: float, *, seed: int, epochs: int,
    gamma: float, lr_quant: float = LR_QUANT,
) -> Bottleneck:
    """Train weights, quantizers and gates together, in place; return the gates, taken off the network again."""
    gates, quantizers = Bottleneck(space.table.n_groups), [q for table in found for q in table.values()]
    pressure = Pressure(relative_bops, rate=PRESSURE, steps=epochs * task.steps_per_epoch)

    def penalty() -> Tensor:
        weight_bits, input_bits = ({layer: learned_bits(q) for layer, q in table.items()} for table in found)
        bops = space.soft_bops(gates.keep(), weight_bits, input_bits)
        pressure.update(float(bops.detach()))
        return pressure.weight * (gamma * gates.cost().mean() + bops.log())

    def hold() -> None:
        for quantizer in quantizers:
            hold_bits(quantizer, LOWEST, HIGHEST)

    remove = place_gates(model, space.table, gates.factors)
    groups = split_parameters(model, quantizers, lr=lr_quant)
    groups.append({"params": list(gates.parameters()), "lr": LR_GATES, "weight_decay": 0.0})
    fit(task, model, epochs, seed=seed, groups=groups, penalty=penalty, after_step=hold)
    remove()
    return gates


def drop_signs(model: nn.Module, found: Attached, calibration: Tensor) -> None:
    """Let inputs that are never negative in ``calibration``, [N, ...], be unsigned, in place; before ranges are set."""
    quantizers = found.activations.values()
    for quantizer in quantizers:
        quantizer.observer = lambda _: None  # an input quantizer without a range passes nothing on
    seen = layer_inputs(model, found.activations, calibration)
    for layer, quantizer in found.activations.items():
        quantizer.observer = None
        quantizer.set_signed(bool((seen[layer] < 0).any()))


Decided = tuple[Quantizers, dict[str, float]]


@torch.no_grad()
def refit_ranges(model: nn.Module, weights: Decided, inputs: Decided, calibration: Tensor) -> None:
    """Let q_m be the one of least squared error at the decided bits, in place: weights first, for they decide the inputs."""
    own = own_parameters(model)
    for layer, quantizer in weights[0].items():
        bits = weights[1][layer]
        levels = 2 ** (bits - 1) - 1
        numbers = quantizer.clip_max, quantizer.exponent
        quantizer.clip_max.copy_(fitted_clip(own[f"{layer}.weight"], levels, *numbers, narrow_range=quantizer.narrow_range))
        hold_bits(quantizer, bits, bits)
    for layer, seen in layer_inputs(model, inputs[0], calibration, raw=True).items():
        quantizer, bits, histogram = inputs[0][layer], inputs[1][layer], Histogram()
        histogram(seen)
        levels = 2 ** (bits - quantizer.signed) - 1
        quantizer.clip_max.fill_(histogram.fitted_clip(levels, float(quantizer.exponent)))
        hold_bits(quantizer, bits, bits)


def whole_bits(quantizers: Quantizers) -> dict[str, int]:
    """Return layer -> its learned bits, rounded."""
    return {layer: min(max(round(float(q.bit_width())), LOWEST), HIGHEST) for layer, q in quantizers.items()}
