"""What the tests of live runs share: a small network in training, with the numbers of a plain loop to compare with."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

import geta_nb as gt
from tests.small_nets import IMAGES, cnn

LABELS = torch.tensor([0, 2])


class Training:
    """A network of two families, its optimizer, and a step that counts itself."""

    def __init__(self, total: int = 40, *, inner=torch.optim.SGD, activations: bool = False, **options) -> None:
        torch.manual_seed(0)
        self.total = total
        self.geta = gt.GETA(cnn(), (IMAGES,), quantize=gt.QuantConfig(activations=activations))
        if activations:
            self.geta.calibrate([IMAGES])
        self.optimizer = self.geta.qasso(inner, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(total), lr=0.05)
        self.calls: list[int] = []
        self.options = options

    def step(self, i: int):
        self.calls.append(i)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.geta.model(IMAGES), LABELS)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss}

    def evaluate(self):
        model = self.geta.model.eval()
        with torch.no_grad():
            right = model(IMAGES).argmax(1) == LABELS
        model.train()
        return {"accuracy": right.float().mean()}

    def run(self, **options):
        return gt.LiveRun(self.step, self.geta, self.optimizer, total_steps=self.total, **{"every": 10, **self.options, **options})


class Endless:
    """A step that takes 5 ms and counts itself; fails at one number if told so."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.count, self.fail_at, self.training = 0, fail_at, Training(8)

    def __call__(self, i: int):
        time.sleep(0.005)
        self.count += 1
        if i == self.fail_at:
            raise ValueError("the data ran out")
        return {"loss": 1.0 / (i + 1)}

    def run(self, total: int = 10_000_000, **options):
        return gt.LiveRun(self, self.training.geta, self.training.optimizer, total_steps=total, **options)


def until(condition, seconds: float = 120.0) -> None:
    """Wait for a condition; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
