"""Bayesian Bits: bit widths are powers of two, each doubling of which is a gate that is learned; a further gate prunes.

    x_2 = s_2 round(x / s_2)           s_2 = (beta - alpha) / (2**2 - 1)             alpha = -beta (signed) or 0
    e_b = s_b round((x - x_{b/2}) / s_b),  s_b = s_{b/2} / (2**(b/2) + 1),  x_{b/2} the sum so far
    x^Q = z_2 (x_2 + z_4 (e_4 + z_8 (e_8 + z_16 e_16)))

Gates are hard-concrete: s = sigmoid((log u - log(1 - u) + phi) / tau), z = clip(s (zeta - gamma) + gamma, 0, 1), u ~ uniform(0, 1), with

    q(z > 0) = sigmoid(phi - tau log(-gamma / zeta)),      gamma = -0.1, zeta = 1.1, tau = 2/3

    loss = cross-entropy + w sum over tensors (MACs / all MACs) (mean q(z_2 > 0)) sum_b b prod_{4 <= j <= b} q(z_j > 0)

At the end a gate is 1 where q(z = 0) < 0.34, else 0. Source: van Baalen et al. 2020, arXiv:2005.07093; the gates of Louizos et al. 2018,
arXiv:1712.01312. Here z_2 of the weights is one gate per group (``gates``), there is no 32-bit level, and w follows the budget in the run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geta_nb.baselines.attach import layer_inputs, quantize_layers, round_through, split_parameters
from geta_nb.baselines.gates import Pressure, family_scores, fold_gates, own_parameters, place_gates, settle
from geta_nb.baselines.space import Space, check_met, dead_indices
from geta_nb.baselines.task import Result, Task, fit, pretrained
from geta_nb.masking import group_flags, mask_groups

GAMMA, ZETA, TAU = -0.1, 1.1, 2 / 3
SHIFT = TAU * math.log(-GAMMA / ZETA)
LEVELS = (4, 8, 16)


def sample(phi: Tensor) -> Tensor:
    """Return hard-concrete gates, shape of ``phi``."""
    u = torch.rand_like(phi).clamp(1e-6, 1 - 1e-6)
    s = torch.sigmoid((u.log() - (1 - u).log() + phi) / TAU)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def probability(phi: Tensor) -> Tensor:
    """Return q(z > 0)."""
    return torch.sigmoid(phi - SHIFT)


def decide(phi: Tensor) -> Tensor:
    """Return the gates of a finished network, 0 or 1."""
    return (1 - probability(phi) < 0.34).to(phi.dtype)


class BitGates(nn.Module):
    """Quantizer with a learned range and a gate for each doubling; ``fixed`` holds the gates once they are decided."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.signed = bool((like < 0).any())
        self.limit = nn.Parameter(like.abs().amax().clamp(min=1e-6).detach().clone())
        self.phi = nn.Parameter(torch.full((len(LEVELS),), 3.0))
        self.fixed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x^Q without z_2, shape of ``x``."""
        gates = self.fixed if self.fixed is not None else sample(self.phi) if self.training else decide(self.phi)
        limit = self.limit.abs().clamp(min=1e-6)
        x = torch.minimum(torch.maximum(x, -limit if self.signed else torch.zeros_like(limit)), limit)
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
        for q, level in zip(probability(self.phi), LEVELS, strict=True):
            passing = passing * q
            bits = bits + level / 2 * passing
        return bits

    def decided_bits(self) -> int:
        """Return the bit width that the decided gates leave: the first closed one ends it."""
        return 2 * 2 ** int(decide(self.phi).cumprod(0).sum())

    def fix(self, bits: int) -> None:
        """Hold the gates at ``bits``, one of 2, 4, 8, 16."""
        self.fixed = torch.tensor([float(level <= bits) for level in LEVELS])


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, dense_share: float = 0.5,
    joint_share: float = 0.6, lr_gates: float = 2e-1, lr_range: float = 1e-3, rate: float = 0.01,
) -> Result:
    """Train in fp32 for ``dense_share`` of the epochs, learn the gates, then train on at fixed gates.

    Raises:
        BudgetError: out of reach.
    """
    space = space or Space(task)
    dense_epochs = round(dense_share * task.epochs)
    joint_epochs = round(joint_share * (task.epochs - dense_epochs))
    model = pretrained(task, seed, dense_epochs)
    torch.manual_seed(seed)
    seen = layer_inputs(model, space.layers if activations else (), task.calibration)
    found = quantize_layers(
        model, space.layers, weight=lambda _, w: BitGates(w), inputs=lambda layer: BitGates(seen[layer]) if layer in seen else None
    )
    weights, inputs = ({layer: q for layer, q in table.items() if isinstance(q, BitGates)} for table in found)
    quantizers = [*weights.values(), *inputs.values()]
    pruning = nn.Parameter(torch.full((space.table.n_groups,), 3.0))
    remove = place_gates(model, space.table, lambda groups, _: (sample if model.training else decide)(pruning[groups])[None])
    shares = {row.layer: row.macs / space.cost.dense.macs for row in space.cost.dense.layers if row.layer in space.layers}
    rows = {entry.parameter: entry.group_of_index for entry in space.table.axis_maps if entry.axis == 0}
    outputs = {k: torch.as_tensor([g for g in rows.get(f"{k}.weight", []) if g >= 0], dtype=torch.int64) for k in space.layers}
    pressure = Pressure(relative_bops, rate=rate, steps=joint_epochs * task.steps_per_epoch)

    def penalty() -> Tensor:
        bits = [{layer: q.expected_bits() for layer, q in table.items()} for table in (weights, inputs)]
        keep = probability(pruning)
        pressure.update(float(space.soft_bops(keep, *bits).detach()))
        kept = {k: keep[groups].mean() if len(groups) else torch.ones(()) for k, groups in outputs.items()}
        terms = [shares[k] * b * kept[k] for k, b in bits[0].items()] + [shares[k] * b for k, b in bits[1].items()]
        return pressure.weight * sum(terms, torch.zeros(()))

    gates = [pruning, *(q.phi for q in quantizers)]
    ranges = nn.ParameterList([q.limit for q in quantizers])
    apart = {id(p) for p in gates}
    split = split_parameters(model, [ranges], lr=lr_range)
    groups = [{**group, "params": [p for p in group["params"] if id(p) not in apart]} for group in split]
    groups.append({"params": gates, "lr": lr_gates, "weight_decay": 0.0})
    fit(task, model, joint_epochs, seed=seed, groups=groups, penalty=penalty)
    chosen = [{layer: q.decided_bits() for layer, q in table.items()} for table in (weights, inputs)]
    scores = family_scores(probability(pruning.detach()).double().numpy(), space.table.family_of)
    alive, weight_bits, activation_bits = settle(space, scores, relative_bops, *chosen, lambda bits: max(bits // 2, 2))
    remove()
    for table, decided in ((weights, weight_bits), (inputs, activation_bits)):
        for layer, quantizer in table.items():
            quantizer.fix(int(decided[layer]))
    fold_gates(model, space.table, torch.as_tensor(alive, dtype=torch.float32))
    dead = group_flags(dead_indices(alive), len(alive))
    keep = lambda: mask_groups(space.table, own_parameters(model), dead)  # noqa: E731
    keep()
    fit(task, model, task.epochs - dense_epochs - joint_epochs, seed=seed + 1000, groups=groups[:-1], after_step=keep)
    notes = {"closed": float((scores < 0).mean()), "groups": int(alive.sum()), "pressure": pressure.weight}
    return check_met(space.measure(model, alive, weight_bits, activation_bits, notes=notes), relative_bops, "Bayesian Bits")
