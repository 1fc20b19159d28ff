"""How redundant groups fade: the forget rate per family and, by the paper's rule, the step size per layer. Pure maths on flat vectors.

Elements of redundant groups stand in one vector of N, the first N_q of them quantized (see ``members.Elements``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from geta_nb.qasso.members import Elements
    from geta_nb.qasso.rules import Rules


def uniform_rate(k: int, length: int) -> float:
    """Return the forget rate 1 - (T-k-1)/(T-k) at step ``k`` of a period of ``length`` T steps: after k+1 steps (T-k-1)/T is left.

    >>> uniform_rate(0, 4), uniform_rate(3, 4)
    (0.25, 1.0)
    """
    return 1 - (length - k - 1) / (length - k)


def split_quantized(x: Tensor, step: Tensor, clip: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Return c = x~ and R, with x^Q = c + d R.

        u = min(|x|, q_m)**t     c = sgn(x) u     R = sgn(x) (round(u/d) - u/d)

    Args:
        x: [N].
        step, clip, exponent: d, q_m and t of each element, [N].
    """
    bent = torch.minimum(x.abs(), clip) ** exponent
    level = bent / step
    sign = x.sign()
    return sign * bent, sign * (level.round() - level)


class PaperRates(NamedTuple):
    """Forget rate per family [F] and step size per layer [L]; ``set_step`` [L] says which layers have one."""

    gamma: Tensor
    step_size: Tensor
    set_step: Tensor


def paper_rates(
    elements: Elements, forgotten: Tensor, residual: Tensor, descent: Tensor, *, rate: float, widest: Tensor, finest: Tensor, rules: Rules
) -> PaperRates:
    """Return the paper's forget rates and step sizes.

        gamma = rate                                    if <c, g> >= 0, else -(1-eta) |s|^2 / <c, s>
        d     = d(b_l)                                  if <R, g> >= 0, else -zeta eta |s|^2 / (gamma <R, s>)
        while d < d(b_u): gamma <- beta gamma, d <- d / beta;   then d <- min(d, d(b_l))

    with s = alpha g, so that alpha |g| / (cos |c|) is |s|^2 / <c, s>. gamma belongs to a family and d to a layer: a family's gamma shrinks
    as often as the neediest of its layers asks, and a layer that several families share counts only their negative <R, s>. So the total
    step -s - gamma (c + d R) keeps <g, step> <= -eta (1-zeta) alpha |g|^2. gamma is capped at 1, which only helps.

    Args:
        elements: whose vectors these are.
        forgotten: c, [N]; x itself where x is not quantized.
        residual: R, [N_q].
        descent: s = x_before - x_after of the inner step, [N].
        rate: the uniform forget rate of this step.
        widest: d(b_l) of each layer, [L].
        finest: d(b_u) of each layer, [L].
        rules: eta, zeta, shrink.

    Returns:
        Rates in [0, 1], 0 only where c is 0; steps within [finest, widest].

    Source: arXiv:2502.16638, the descent law by our own derivation.
    """
    n_q = elements.n_quantized
    cs, ss, cc = elements.of_family.sums([forgotten * descent, descent * descent, forgotten * forgotten])
    gamma = torch.where(cs < 0, (-(1 - rules.eta) * ss / cs).clamp(max=1.0), rate)
    gamma = torch.where(cc > 0, gamma, 0.0)

    inner, squares = elements.of_pair.sums([residual * descent[:n_q], descent[:n_q] ** 2])
    inner, moved = inner.clamp(max=0), elements.of_layer.sum(squares)

    def steps(gamma: Tensor) -> Tensor:
        against = elements.of_layer.sum(gamma[elements.pair_family] * inner)
        return torch.where(against < 0, -rules.zeta * rules.eta * moved / against, widest)

    wanted = torch.log(finest / steps(gamma)) / math.log(1 / rules.shrink)
    times = wanted.ceil().clamp(min=0, max=1e3)
    neediest = torch.zeros_like(gamma).scatter_reduce_(0, elements.pair_family, times[elements.pair_layer], "amax")
    gamma = gamma * rules.shrink**neediest
    step = torch.minimum(torch.maximum(steps(gamma), finest), widest)
    present = torch.zeros_like(widest, dtype=torch.bool).index_fill_(0, elements.pair_layer, True)
    return PaperRates(gamma, step, present)
