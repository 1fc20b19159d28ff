"""LSQ, learned step size quantization at fixed bits: each tensor's step is trained by gradient, the bits are given.

    v^Q = s round(clip(v / s, -Q_n, Q_p))           Q_n = 2**(b-1), Q_p = 2**(b-1) - 1 (signed);  Q_n = 0, Q_p = 2**b - 1 (unsigned)
    d v^Q / d s = round(v/s) - v/s inside, -Q_n below, Q_p above;   d v^Q / d v = 1 inside, 0 outside

The gradient of s is scaled by g = 1 / sqrt(N Q_p), N the elements of a weight (features of an activation); s starts at 2 <|v|> / sqrt(Q_p).
Source: Esser et al. 2020, arXiv:1902.08153. As there, training starts from an fp32 network, and inputs that are never negative are
unsigned; unlike there, the first and the last layer have the bits of the others, for the budget counts them too. Given beyond the paper:
``start="error"``, an s of least squared error.
"""

from __future__ import annotations

from torch import Tensor, nn

from geta_nb.baselines.attach import adapt_norms, layer_inputs, least_error, quantize_layers, round_through, split_parameters
from geta_nb.baselines.space import Space, check_met
from geta_nb.baselines.task import Result, Task, fit, pretrained
from geta_nb.errors import InputError

STARTS = ("paper", "error")


class LSQ(nn.Module):
    """Quantizer with one learned step.

    Args:
        like: values to start from; negative ones make it signed.
        bits: b.
        count: N of the gradient's scale.
        start: of s: ``"paper"``, the formula above; ``"error"``, what rounds ``like`` with the least squared error.

    Raises:
        InputError: no such start.
    """

    def __init__(self, like: Tensor, bits: int, count: int, start: str = "paper") -> None:
        super().__init__()
        if start not in STARTS:
            raise InputError("LSQ: no such start.", expected=" or ".join(map(repr, STARTS)), got=repr(start), hint='start="error"')
        signed = bool((like < 0).any())
        self.low: int = -(2 ** (bits - 1)) if signed else 0
        self.high: int = (2 ** (bits - 1) if signed else 2**bits) - 1
        self.scale = (count * self.high) ** -0.5
        first = 2 * like.abs().mean() / self.high**0.5 if start == "paper" else self._fitted(like)
        self.step = nn.Parameter(first.clamp(min=1e-8).detach().clone())

    def _fitted(self, like: Tensor) -> Tensor:
        largest = like.abs().amax().clamp(min=1e-8) / self.high
        share = least_error(like, lambda v, f: (v / (f * largest)).clamp(self.low, self.high).round() * (f * largest))
        return share * largest

    def forward(self, v: Tensor) -> Tensor:
        """Return v^Q, shape of ``v``."""
        scaled = self.step * self.scale
        step = scaled + (self.step - scaled).detach()  # the value of s, with g times its gradient
        rounded: Tensor = round_through((v / step).clamp(self.low, self.high)) * step
        return rounded


def compress(
    task: Task, relative_bops: float, *, seed: int, activations: bool = False, space: Space | None = None, dense_share: float = 0.5,
    lr_step: float = 1e-3, start: str = "paper",
) -> Result:
    """Train in fp32 for ``dense_share`` of the epochs, then with LSQ at one precision, the dearest that the budget allows.

    Args:
        lr_step: learning rate of the steps.
        start: of the steps, see :class:`LSQ`.

    Raises:
        BudgetError: 2 bits are not cheap enough.
        InputError: no such start.
    """
    space = space or Space(task)
    bits = space.uniform_bits(relative_bops, activations=activations)
    dense_epochs = round(dense_share * task.epochs)
    model = pretrained(task, seed, dense_epochs)
    if not dense_epochs:
        adapt_norms(model, task.calibration.split(64))  # else ranges of inputs would start from norms that have seen nothing
    train_quantized(task, space, model, bits, task.epochs - dense_epochs, seed=seed, lr_step=lr_step, start=start)
    result = space.measure(model, space.everyone, *space.bits(*bits), notes={"weights": bits[0], "inputs": bits[1]})
    return check_met(result, relative_bops, "LSQ")


def train_quantized(
    task: Task, space: Space, model: nn.Module, bits: tuple[int, int], epochs: int, *, seed: int, lr_step: float = 1e-3,
    start: str = "paper",
) -> None:
    """Quantize every layer of ``model`` at (weight, input) ``bits`` and train, in place; 32 is no quantizer."""
    weight_bits, activation_bits = space.bits(*bits)
    seen = layer_inputs(model, activation_bits, task.calibration)
    found = quantize_layers(
        model,
        dict.fromkeys([*weight_bits, *activation_bits]),
        weight=lambda layer, w: LSQ(w, bits[0], w.numel(), start) if layer in weight_bits else None,
        inputs=lambda layer: LSQ(seen[layer], bits[1], seen[layer][0].numel(), start) if layer in seen else None,
    )
    groups = split_parameters(model, [q for table in found for q in table.values()], lr=lr_step)
    fit(task, model, epochs, seed=seed, groups=groups)
