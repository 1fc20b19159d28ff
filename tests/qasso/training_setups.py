"""The ways in which people train, as data: optimizers, schedulers, precision, and small nets to train. In: names. Out: built objects.

Used by the tests of constraints and by those of laws, so that a new optimizer is tested everywhere once it stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler

import geta_nb as gt
from tests.small_nets import Residual, cnn

Groups = Iterable[Any]


class SignMomentum(torch.optim.Optimizer):
    """A third party's optimizer as small ones on PyPI are written: a plain loop, state made at the first step, no foreach.

    The update is the sign of a mixture of momentum and gradient (Chen et al. 2023, arXiv:2302.06675), with decoupled decay.
    """

    def __init__(self, params: Groups, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"] = torch.zeros_like(p)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(state["exp_avg"].mul(first).add(p.grad, alpha=1 - first).sign_(), alpha=-group["lr"])
                state["exp_avg"].lerp_(p.grad, 1 - second)
        return loss


def _hf_adafactor(params: Groups, lr: float = 1e-3, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    return Adafactor(params, lr=lr, weight_decay=weight_decay, relative_step=False, scale_parameter=False)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "sgd momentum": lambda params, **o: torch.optim.SGD(params, momentum=0.9, nesterov=True, **o),
    "adam": torch.optim.Adam,
    "adam amsgrad": lambda params, **o: torch.optim.Adam(params, amsgrad=True, **o),
    "adamw fused": lambda params, **o: torch.optim.AdamW(params, fused=True, **o),
    "adamw foreach": lambda params, **o: torch.optim.AdamW(params, foreach=True, **o),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": lambda params, **o: torch.optim.RMSprop(params, momentum=0.5, **o),
    "nadam": torch.optim.NAdam,
    "third party": SignMomentum,
    "hf adafactor": _hf_adafactor,
}


def one_cycle(optimizer: torch.optim.Optimizer, total: int, max_lr: float | list[float]) -> Any:
    """The momentum cycles too where there is one, which torch asks the user to say."""
    cycles = bool({"momentum", "betas"} & optimizer.defaults.keys()) and optimizer.defaults.get("momentum", 1) != 0
    return lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=total, cycle_momentum=cycles)


SCHEDULERS: dict[str, Callable[[Any, int], Any] | None] = {
    "none": None,
    # one value for all groups: what an impatient user writes, though it sets the quantizers' rate too
    "one cycle": lambda optimizer, total: one_cycle(optimizer, total, 0.05),
    "one cycle per group": lambda optimizer, total: one_cycle(optimizer, total, [group["lr"] for group in optimizer.param_groups]),
    "warm restarts": lambda optimizer, _: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=5),
    "plateau": lambda optimizer, _: lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5),
}


class Attention(nn.Module):
    """Four heads over five tokens: a group is a head of four channels, or a neuron of the hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(16, 12), nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], 4, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


@dataclass(frozen=True)
class Net:
    """How to build one, the shape of one example, its classes, and a parameter that a user might freeze."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    frozen: str
    layer: str

    def batch(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return inputs and labels that can be learned."""
        labels = torch.arange(rows) % self.classes
        x = 0.3 * torch.randn(rows, *self.shape)
        x[torch.arange(rows), labels] += 1
        return x, labels

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, over the mean of the plane where there is one."""
        return F.cross_entropy(output.mean((2, 3)) if output.ndim == 4 else output, labels)


NETS = {
    "cnn": Net(cnn, (3, 6, 6), 3, "0.weight", "3"),
    "residual": Net(Residual, (3, 6, 6), 2, "stem.weight", "body"),
    "attention": Net(Attention, (5, 16), 3, "q.weight", "up"),
}


def parameter_groups(geta: gt.GETA, lrs: Sequence[float], decay: float) -> list[dict[str, Any]]:
    """The model's own parameters dealt out to groups with a learning rate each; the quantizers' are left to the optimizer."""
    own = [p for name, p in geta.model.named_parameters() if not name.endswith(("step_size", "clip_max", "exponent"))]
    groups = [{"params": own[i :: len(lrs)], "lr": lr} for i, lr in enumerate(lrs)]
    groups[0]["weight_decay"] = decay
    return groups
