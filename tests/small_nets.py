"""Nets of a few hundred parameters and what the façade's tests ask of them. Comes in: nothing. Goes out: nets, inputs, data, snapshots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._pytree import tree_leaves

import geta_nb as gt


def cnn(width: int = 8) -> nn.Sequential:
    """conv-BN-ReLU twice, pooled, and a linear head of 3 classes; two families of ``width`` filters."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 3),
    )


IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """Both convolutions share the residual stream, and the sum is what the head reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(x + self.body(x)))


class Literal(nn.Module):
    """The width stands in forward as a number, so the class itself cannot be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)).view(x.shape[0], 12))


@dataclass
class Answer:
    """An output with names."""

    logits: Tensor
    hidden: Tensor


pytree.register_dataclass(Answer)


class Talker(nn.Module):
    """Gives its results in the form that is asked for."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.first, self.second = form, nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        logits = self.second(F.relu(self.first(x)))
        if self.form == "dataclass":
            return Answer(logits, logits.mean(1))
        return {"logits": logits, "more": [logits.mean(1)]} if self.form == "dict" else (logits, (logits.mean(1),))


class KeywordOnly(nn.Module):
    """Takes ids and a mask by keyword, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.second = nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, *, ids: Tensor, mask: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(self.table(ids)))) * mask.unsqueeze(-1)


def leaves(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def evaluate(model: nn.Module, *args: Any, **kwargs: Any) -> list[Tensor]:
    """Outputs in eval mode; the mode returns."""
    was = model.training
    with torch.no_grad():
        found = leaves(model.eval()(*args, **kwargs))
    model.train(was)
    return found


def assert_same(left: list[Tensor], right: list[Tensor], atol: float = 0.0) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0, equal_nan=True)


def every_third(geta: gt.GETA) -> list[int]:
    """Indices of a third of each family."""
    return [group.index for family in geta.families for group in list(family.groups)[::3]]


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that must not change: tensors, objects, classes, hooks, modes."""
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "parameters": [(name, id(p), p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)],
        "modules": [(name, id(m), type(m), m.training) for name, m in model.named_modules(remove_duplicate=False)],
        "hooks": [(len(m._forward_pre_hooks), len(m._forward_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
    }


def assert_unchanged(model: nn.Module, before: dict[str, Any]) -> None:
    now = snapshot(model)
    assert list(now["state"]) == list(before["state"])
    assert all(torch.equal(now["state"][name], before["state"][name]) for name in before["state"])
    for key in ("parameters", "modules", "hooks", "attributes"):
        assert now[key] == before[key], key


def coloured_images(count: int) -> tuple[Tensor, Tensor]:
    """Images of noise whose class is the brightest channel: separable by a convolution and a pool."""
    labels = torch.arange(count) % 3
    images = 0.3 * torch.randn(count, 3, 6, 6)
    images[torch.arange(count), labels] += 1
    return images, labels


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    """Plain training; the batch of a step depends on its number alone, so that a resumed run sees the same."""
    for step in steps:
        torch.manual_seed(step)
        images, labels = coloured_images(24)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
