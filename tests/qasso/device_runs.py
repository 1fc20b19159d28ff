"""One short training run through all stages, wherever it is asked for: for the tests of devices, in this process and in another.

As a script it makes the device of ``tests.pretend``, and prints in one line of JSON what runs on it gave.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import geta_nb as gt

SCHEDULE = gt.Schedule(2, 4, 2, 8, 2)
STEPS = 17
MOVED = (("adam", 0), ("adam", 9), ("sgd", 5), ("paper", 9), ("channels", 9))
BUDGET = gt.Budget(group_sparsity=0.5, bit_range=(4, 8))


class Net(nn.Module):
    """A convolution, a norm and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(8, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        out: Tensor = self.head(torch.relu(self.hidden(x)))
        return out


def batch(number: int) -> Tensor:
    """Return a batch that depends on its number alone, on the CPU."""
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(number), device="cpu")


class Run:
    """A network and its optimizer, of the same seed every time.

    Args:
        device: where it is.
        kind: "adam", "sgd" or "paper" (its rules, with Adam), each with quantized weights and inputs; "channels": a range a channel.
    """

    def __init__(self, device: str | torch.device = "cpu", kind: str = "adam") -> None:
        with torch.device("cpu"):
            torch.manual_seed(0)
            self.model = Net()
        self.model.to(device)
        granularity = "channel" if kind == "channels" else "tensor"
        config = gt.QuantConfig(activations=True, initial_bits=8, granularity=granularity)
        self.geta = gt.GETA(self.model, batch(99)[:2].to(device), quantize=config)
        self.geta.calibrate([batch(99).to(device)])
        inner: dict[str, Any] = {"lr": 0.05, "momentum": 0.9} if kind == "sgd" else {"lr": 1e-2}
        self.optimizer = self.geta.qasso(
            torch.optim.SGD if kind == "sgd" else torch.optim.Adam, budget=BUDGET, schedule=SCHEDULE,
            rules="paper" if kind == "paper" else "default", **inner,
        )  # fmt: skip
        self.done = 0

    def train(self, until: int = STEPS) -> Run:
        """Take the steps that are left until so many are done; return self."""
        for number in range(self.done, until):
            parameter = next(self.model.parameters())
            self.optimizer.zero_grad()
            self.model(batch(number).to(parameter)).square().mean().backward()
            self.optimizer.step()
        self.done = until
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Return all that the run made, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def outputs(self) -> Tensor:
        """Return what the subnet computes, on the CPU."""
        subnet = self.geta.construct_subnet().eval()
        with torch.no_grad():
            found: Tensor = subnet(batch(98).to(next(subnet.parameters()))).cpu()
        return found


def digest(tensors: dict[str, Tensor]) -> str:
    """Return sixteen digits of all bits of some tensors of the CPU."""
    found = hashlib.sha256()
    for value in tensors.values():
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def waits(device: torch.device) -> list[int]:
    """Return how often each step waits for the device."""
    from tests.pretend import WAITS

    run, found = Run(device), []
    step = run.optimizer.step

    def counted() -> None:
        WAITS.clear()
        step()
        found.append(sum(WAITS.values()))

    run.optimizer.step = counted  # type: ignore[method-assign]
    run.train()
    return found


def moved(device: torch.device, kind: str, at: int) -> dict[str, str]:
    """Return digests of a run that is on a device from some step on: weights, and outputs of the subnet; and of a copy of it all."""
    run = Run("cpu", kind).train(at)
    run.model.to(device)
    run.train()
    twin = copy.deepcopy(run.geta).construct_subnet().eval()
    copied = twin(batch(98).to(device)).detach().cpu()
    return {"weights": digest(run.tensors()), "outputs": digest({"": run.outputs()}), "copy": digest({"": copied})}


def draws(device: torch.device, folder: str) -> dict[str, bool]:
    """Return, of each thing that runs a model for its own purposes, whether the device's generator stands where it stood."""
    run, found = Run(device), {}
    module = torch.get_device_module(device)
    module.manual_seed_all(7)

    def noted(name: str, before: Tensor) -> None:
        found[name] = torch.equal(before, module.get_rng_state(device))

    for name, call in {
        "sensitivity": lambda: run.geta.sensitivity([batch(1).to(device)], noisy_loss, bits=(4,), kept=(0.5,)),
        "construct_subnet": lambda: run.geta.construct_subnet(),
        "save": lambda: gt.save(run.geta.construct_subnet(), Path(folder) / "net.safetensors"),
        "GETA": lambda: gt.GETA(Noisy().to(device), batch(1)[:2].to(device)),
    }.items():
        before = module.get_rng_state(device)
        call()
        noted(name, before)
    return found


def noisy_loss(model: nn.Module, x: Tensor) -> Tensor:
    """A loss that draws random numbers."""
    loss: Tensor = model(x + 0.01 * torch.randn_like(x)).square().mean()
    return loss


class Noisy(Net):
    """Draws random numbers in evaluation, too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.01 * torch.randn_like(x))


def main(folder: str) -> None:
    """Print the answers."""
    from tests.pretend import start

    device = start()
    run = Run(device).train()
    answers = {
        "weights": digest(run.tensors()), "outputs": digest({"": run.outputs()}), "waits": waits(device), "draws": draws(device, folder),
        "moved": {f"{kind} {at}": moved(device, kind, at) for kind, at in MOVED},
    }  # fmt: skip
    sys.stdout.write(json.dumps(answers) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
