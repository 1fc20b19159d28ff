"""What the tests of live runs share: a small network in training, with the numbers of a plain loop to compare with."""

from __future__ import annotations

import threading
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


class Gated:
    """A step that is let through one at a time, or all of them; nothing of it depends on how fast a machine is."""

    def __init__(self, *, fail_at: int | None = None, training: Training | None = None) -> None:
        self.calls: list[int] = []
        self.standing = False
        self.fail_at, self.training = fail_at, training or Training(8)
        self._passes, self._open = threading.Semaphore(0), threading.Event()

    def __call__(self, i: int):
        self.standing = True
        if not self._open.is_set():
            assert self._passes.acquire(timeout=120), "never let through"
        self.standing = False
        self.calls.append(i)
        if i == self.fail_at:
            raise ValueError("the data ran out")
        return {"loss": 1.0 / (i + 1)}

    def let(self, steps: int) -> None:
        """Let that many steps through, and wait until they were begun."""
        before = len(self.calls)
        self._passes.release(steps)
        until(lambda: len(self.calls) >= before + steps)

    def ask(self, run, call: str) -> None:
        """Call ``run.pause()`` or ``run.stop()`` while a step stands at the gate, let that step through, and wait for the call."""
        until(lambda: self.standing)
        asking = in_thread(getattr(run, call))
        until(lambda: run.asked == call)
        self.let(1)
        asking.join(120)
        assert not asking.is_alive() and run.state == {"pause": "paused", "stop": "stopped"}[call]

    def open(self) -> None:
        """Let all steps through from here on."""
        self._open.set()
        self._passes.release(1)

    def run(self, total: int = 10_000_000, **options):
        return gt.LiveRun(self, self.training.geta, self.training.optimizer, total_steps=total, **options)


def in_thread(work) -> threading.Thread:
    """Begin ``work()`` in a thread of its own."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition, seconds: float = 120.0) -> None:
    """Wait for a condition; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
