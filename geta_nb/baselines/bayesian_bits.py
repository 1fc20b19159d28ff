"""Bayesian Bits: bit widths are powers of two, each doubling of which is a gate that is learned; a further gate prunes.

    x_2 = s_2 round(x / s_2)           s_2 = (beta - alpha) / (2**2 - 1)             alpha = -beta (signed) or 0
    e_b = s_b round((x - x_{b/2}) / s_b),  s_b = s_{b/2} / (2**(b/2) + 1),  x_{b/2} the sum so far
    x^Q = z_2 (x_2 + z_4 (e_4 + z_8 (e_8 + z_16 e_16)))

Gates are hard-concrete: s = sigmoid((log u - log(1 - u) + logits) / tau), z = clip(s (zeta - gamma) + gamma, 0, 1), u ~ uniform(0, 1), with

    q(z > 0) = sigmoid(logits - tau log(-gamma / zeta)),      gamma = -0.1, zeta = 1.1, tau = 2/3

    loss = cross-entropy + w sum over tensors (MACs / all MACs) (mean q(z_2 > 0)) sum_b b prod_{4 <= j <= b} q(z_j > 0)

At the end a gate is 1 where q(z = 0) < 0.34, else 0. Source: van Baalen et al. 2020, arXiv:2005.07093; the gates of Louizos et al. 2018,
arXiv:1712.01312. Here z_2 of the weights is one gate per group (``gates``), there is no 32-bit level, and w follows the budget in the run.
Inputs that are never negative are unsigned, as there. Given beyond the paper: ``refit=True``, ranges of least squared error at the decided
bits, from which what is left trains on (at the 16 bits of the start that is max|x|).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.baselines.attach import layer_inputs, least_error, quantize_layers, round_through, split_parameters
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
from geta_nb.baselines.hard_concrete import decide, probability, sample
from geta_nb.baselines.space import Space, check_met
from geta_nb.baselines.task import Result, Task, fit, pretrained

LEVELS = (4, 8, 16)


class BitGates(nn.Module):
    """Quantizer with a learned range and a gate for each doubling; ``fixed`` holds the gates once they are decided."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.signed = bool((like < 0).any())
        self.limit = nn.Parameter(like.abs().amax().clamp(min=1e-6).detach().clone())
        self.logits = nn.Parameter(torch.full((len(LEVELS),), 3.0))
        self.fixed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x^Q without z_2, shape of ``x``."""
        gates = self.fixed if self.fixed is not None else sample(self.logits) if self.training else decide(self.logits)
        limit = self.limit.abs().clamp(min=1e-6)
        # as in the source, the range ends just inside: its very end lies midway between two codes, one of which would be too many
        end = limit * (1 - 1e-6)
        x = torch.minimum(torch.maximum(x, -end if self.signed else torch.zeros_like(end)), end)
        step = (2 if self.signed else 1) * limit / 3
        total = step * round_through(x / step)
        passing = torch.ones_like(limit)
        known = total
        for gate, bits in zip(gates, LEVELS, strict=True):
            step = step / (2 ** (bits // 2) + 1)
            residual = step * round_through((x - known) / step)
            known, passing = known + residual, passing * gate
            total = total + passing * residual
        return total

    def expected_bits(self) -> Tensor:
        """Return the mean bit width under the gates, 0-dim."""
        passing, bits = torch.ones(()), torch.tensor(2.0)
        for q, level in zip(probability(self.logits), LEVELS, strict=True):
            passing = passing * q
            bits = bits + level / 2 * passing
        return bits

    def decided_bits(self) -> int:
        """Return the bit width that the decided gates leave: the first closed one ends it."""
        return int(2 ** (1 + decide(self.logits).cumprod(0).sum()))

    def fix(self, bits: int) -> None:
        """Hold the gates at ``bits``, one of 2, 4, 8, 16."""
        self.fixed = torch.tensor([float(level <= bits) for level in LEVELS])

    @torch.no_grad()
    def refit(self, like: Tensor) -> None:
        """Let the range be the one that rounds ``like`` with the least squared error at the fixed gates, in place."""
        largest = like.abs().amax().clamp(min=1e-6)

        def rounded(x: Tensor, share: float) -> Tensor:
            self.limit.copy_(share * largest)
            out: Tensor = self(x)
            return out

        self.limit.copy_(largest * least_error(like, rounded))


Quantizers = dict[str, BitGates]
LR_GATES, LR_RANGE = 2e-1, 1e-3


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, dense_share: float = 0.5,
    joint_share: float = 0.6, rate: float = 0.01, refit: bool = False,
) -> Result:
    """Train in fp32 for ``dense_share`` of the epochs, learn the gates, then train on; ``refit``: from ranges fitted anew."""
    space = space or Space(task)
    dense_epochs, joint_epochs, rest_epochs = phases(task, dense_share, joint_share)
    model = pretrained(task, seed, dense_epochs)
    torch.manual_seed(seed)
    seen = layer_inputs(model, space.layers if activations else (), task.calibration)
    found = quantize_layers(
        model, space.layers, weight=lambda _, w: BitGates(w), inputs=lambda layer: BitGates(seen[layer]) if layer in seen else None
    )
    weights, inputs = ({layer: q for layer, q in table.items() if isinstance(q, BitGates)} for table in found)
    pruning = nn.Parameter(torch.full((space.table.n_groups,), 3.0))
    pressure = Pressure(relative_bops, rate=rate, steps=joint_epochs * task.steps_per_epoch)
    rest = learn(task, space, model, (weights, inputs), pruning, pressure, seed=seed, epochs=joint_epochs)
    scores = family_scores(probability(pruning.detach()).double().numpy(), space.table.family_of)
    chosen_weights, chosen_inputs = ({layer: q.decided_bits() for layer, q in table.items()} for table in (weights, inputs))
    halve = lambda bits: max(bits // 2, 2)  # noqa: E731
    alive, weight_bits, activation_bits = settle(space, scores, relative_bops, chosen_weights, chosen_inputs, halve)
    for table, decided in ((weights, weight_bits), (inputs, activation_bits)):
        for layer, quantizer in table.items():
            quantizer.fix(int(decided[layer]))
    fold_gates(model, space.table, torch.as_tensor(alive, dtype=torch.float32))
    if refit:
        refit_ranges(model, weights, inputs, task.calibration)
    train_masked(task, space, model, alive, rest_epochs, seed=seed, groups=rest)
    notes = {"closed": float((scores < 0).mean()), "groups": int(alive.sum())}
    return check_met(space.measure(model, alive, weight_bits, activation_bits, notes=notes), relative_bops, "Bayesian Bits")


def refit_ranges(model: nn.Module, weights: Quantizers, inputs: Quantizers, calibration: Tensor) -> None:
    """Fit all ranges to the network as it stands, in place: weights first, for they decide the inputs."""
    own = own_parameters(model)
    for layer, quantizer in weights.items():
        quantizer.refit(own[f"{layer}.weight"].detach())
    for layer, seen in layer_inputs(model, inputs, calibration, raw=True).items():
        inputs[layer].refit(seen)


def learn(
    task: Task, space: Space, model: nn.Module, found: tuple[Quantizers, Quantizers], pruning: nn.Parameter, pressure: Pressure, *,
    seed: int, epochs: int,
) -> list[dict[str, Any]]:
    """Train weights, ranges and gates together, in place; return Adam's groups without the gates."""
    macs = space.cost.dense.macs
    shares = {row.layer: row.macs / macs for row in space.cost.dense.layers if row.layer in space.layers}
    rows = {entry.parameter: entry.group_of_index for entry in space.table.axis_maps if entry.axis == 0}
    outputs = {k: torch.as_tensor([g for g in rows.get(f"{k}.weight", []) if g >= 0], dtype=torch.int64) for k in space.layers}

    def penalty() -> Tensor:
        weight_bits, input_bits = ({layer: q.expected_bits() for layer, q in table.items()} for table in found)
        keep = probability(pruning)
        pressure.update(float(space.soft_bops(keep, weight_bits, input_bits).detach()))
        kept = {k: keep[groups].mean() if len(groups) else torch.ones(()) for k, groups in outputs.items()}
        terms = [shares[k] * b * kept[k] for k, b in weight_bits.items()] + [shares[k] * b for k, b in input_bits.items()]
        return pressure.weight * torch.stack(terms).sum()

    quantizers = [q for table in found for q in table.values()]
    gates = [pruning, *(q.logits for q in quantizers)]
    apart = {id(p) for p in gates}
    split = split_parameters(model, [nn.ParameterList([q.limit for q in quantizers])], lr=LR_RANGE)
    groups = [{**group, "params": [p for p in group["params"] if id(p) not in apart]} for group in split]
    remove = place_gates(model, space.table, lambda index, _: (sample if model.training else decide)(pruning[index])[None])
    fit(task, model, epochs, seed=seed, groups=[*groups, {"params": gates, "lr": LR_GATES, "weight_decay": 0.0}], penalty=penalty)
    remove()
    return groups
