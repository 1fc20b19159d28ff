"""What the tests of live runs share: a small network in training, with the numbers of a plain loop to compare with."""

from __future__ import annotations

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
