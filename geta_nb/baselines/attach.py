"""The mechanics of a quantized layer: any module on its weight, any module on its input.

In: a network and, per layer, what its weight and its input pass through. Out: the same network. Methods bring their own formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from geta_nb.baselines.task import eval_mode

Made = nn.Module | None
SHARES, OCTAVES = 60, 6
"""Candidates of :func:`least_error`: shares of the full range between 2**-6 and 1, 7 % apart."""
MOST = 2**16
"""Of a larger tensor it looks at about so many elements, evenly spaced."""


def quantize_layers(
    model: nn.Module, layers: Iterable[str], *, weight: Callable[[str, Tensor], Made] = lambda *_: None,
    inputs: Callable[[str], Made] = lambda _: None,
) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Put quantizers on ``layers`` of ``model``, in place.

    Args:
        weight: (layer, its weight) -> module that the weight passes through, or None.
        inputs: layer -> module that its first input passes through, or None.

    Returns:
        Layer -> module, of weights and of inputs.
    """
    weights: dict[str, nn.Module] = {}
    activations: dict[str, nn.Module] = {}
    for layer in layers:
        owner = model.get_submodule(layer)
        on_weight, on_input = weight(layer, cast(Tensor, owner.weight).detach()), inputs(layer)
        if on_weight is not None:
            parametrize.register_parametrization(owner, "weight", on_weight, unsafe=True)
            weights[layer] = on_weight
        if on_input is not None:
            owner.baseline_input = on_input
            owner.register_forward_pre_hook(_pass_input)
            activations[layer] = on_input
    return weights, activations


def _pass_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (cast(nn.Module, module.baseline_input)(args[0]), *args[1:])


def layer_inputs(model: nn.Module, layers: Iterable[str], batch: Tensor, *, raw: bool = False) -> dict[str, Tensor]:
    """Return layer -> its input, when ``batch`` runs through the network in eval mode; ``raw``: before its own quantizer."""
    seen: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(layer).register_forward_pre_hook(lambda _, args, layer=layer: seen.__setitem__(layer, args[0]), prepend=raw)
        for layer in layers
    ]
    try:
        with eval_mode(model):
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def round_through(x: Tensor) -> Tensor:
    """Return round(x), with the gradient of x."""
    return x + (x.round() - x).detach()


@torch.no_grad()
def least_error(x: Tensor, rounded: Callable[[Tensor, float], Tensor]) -> float:
    """Return the share of a quantizer's full range, 2**-6 to 1, that rounds with the least squared error.

        argmin over f of sum of (x - rounded(x, f))**2

    Args:
        x: what is to be rounded, any shape.
        rounded: (some elements of x, f) -> what the quantizer makes of them when its range ends at f times its full one.

    Returns:
        f; of equals the widest.

    >>> x = torch.tensor([0.9, -1.0, 1.1, 1.0, -1.0, 1.0, 0.0, 2.0])
    >>> round(least_error(x, lambda v, f: (v / (2 * f)).round().clamp(-1, 1) * 2 * f), 2)
    0.57
    """
    flat = x.detach().reshape(-1)
    flat = flat[:: max(1, -(-flat.numel() // MOST))]
    shares = [2 ** (-OCTAVES * step / SHARES) for step in range(SHARES + 1)]
    return min(shares, key=lambda share: float((flat - rounded(flat, share)).square().sum()))


def split_parameters(model: nn.Module, apart: Iterable[nn.Module], *, lr: float) -> list[dict[str, Any]]:
    """Return Adam's groups: everything at the default rate, the parameters of ``apart`` at ``lr`` and without decay."""
    own = list({id(p): p for module in apart for p in module.parameters() if p.requires_grad}.values())
    known = {id(p) for p in own}
    rest = [p for p in model.parameters() if id(p) not in known]
    return [{"params": rest}, {"params": own, "lr": lr, "weight_decay": 0.0}] if own else [{"params": rest}]


@torch.no_grad()
def adapt_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure batch-norm statistics anew, in place: cumulative means over ``batches``, weights untouched (adaptive batch norm)."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta, modes = [norm.momentum for norm in norms], [(module, module.training) for module in model.modules()]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    model.train()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes:
        module.training = mode
