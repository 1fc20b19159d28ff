"""The digits benchmark: scikit-learn's bundled digits and a small convolutional network, trained in seconds on a CPU.

In: a seed, a width, a budget. Out: tensors, a network, a trained network, a compressed one with its measured facts.
The data come with scikit-learn, so nothing is downloaded. The table of all rows is :mod:`geta_nb.bench.digits_table`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geta_nb.bench.geta_run import Run, compress, official_schedule
from geta_nb.bench.small_net import small_net
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import MissingExtraError
from geta_nb.qasso import Schedule

EPOCHS = 30
BATCH = 64
WEIGHT_DECAY = 1e-4
LEARNING_RATE = 1e-3
IMAGE = (3, 16, 16)


@dataclass(frozen=True)
class Digits:
    """Images and labels of one split.

    Args:
        train_images: [N, 3, 16, 16], standardised by the mean and deviation of the 80 % training part.
        train_labels: [N], int64.
        test_images: [M, 3, 16, 16], standardised by the same numbers.
        test_labels: [M], int64.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-len(self.train_labels) // BATCH)


def load_digits(*, validation: bool = False) -> Digits:
    """Return the digits of the benchmark: 1437 training and 360 test images.

    Args:
        validation: split the *training* images once more (80 : 20) and return that part as ``test_*``. Defaults of this
            package are chosen on it; the test images are for the table alone.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as sklearn_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        hint = 'pip install "geta-nb[bench]"'
        raise MissingExtraError("load_digits: the digits come with scikit-learn, which is not installed.", hint=hint) from None
    source = sklearn_digits()
    train, test = train_test_split(np.arange(len(source.target)), test_size=0.2, random_state=0, stratify=source.target)
    images = torch.tensor(source.images / 16.0, dtype=torch.float32)[:, None]
    images = nn.functional.interpolate(images, size=IMAGE[1:], mode="bilinear", align_corners=False).repeat(1, IMAGE[0], 1, 1)
    images = (images - images[train].mean()) / images[train].std()
    if validation:
        train, test = train_test_split(train, test_size=0.2, random_state=0, stratify=source.target[train])
    labels = torch.tensor(source.target, dtype=torch.int64)
    return Digits(images[train], labels[train], images[test], labels[test])


def digits_net(width: float = 1.0) -> nn.Sequential:
    """Return the network of the benchmark, freshly initialised: six 3x3 convolutions, two linear layers, 82k parameters.

    Args:
        width: multiplier of every inner channel count; 1 is the benchmark's network.
    """
    return small_net(width, in_channels=IMAGE[0])


def batches(data: Digits, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled batches, (images [B, 3, 16, 16], labels [B])."""
    order = torch.randperm(len(data.train_labels), generator=generator)
    for rows in order.split(BATCH):
        yield data.train_images[rows], data.train_labels[rows]


def calibration_batches(data: Digits, count: int = 4) -> Iterator[Tensor]:
    """Yield ``count`` fixed batches of training images, [B, 3, 16, 16], for the ranges of activation quantizers."""
    yield from data.train_images[: count * BATCH].split(BATCH)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Digits,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Iterable[int] | None = None,
    after_step: Callable[[Tensor], None] | None = None,
) -> None:
    """Train ``model`` in place with cross-entropy and a cosine decay of the optimizer's learning rates to zero.

    Args:
        progress: an iterable over ``range(epochs)`` that shows progress (``tqdm.trange(epochs)``); None shows nothing.
        after_step: called with the loss, a scalar, after every optimizer step; for records and pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * data.steps_per_epoch)
    model.train()
    for _ in range(epochs) if progress is None else progress:
        for images, labels in batches(data, generator):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            decay.step()
            if after_step is not None:
                after_step(loss.detach())


def train_dense(
    data: Digits, *, seed: int = 0, width: float = 1.0, epochs: int = EPOCHS, progress: Iterable[int] | None = None
) -> nn.Sequential:
    """Return a dense fp32 network trained from scratch: what every compressed row is measured against."""
    torch.manual_seed(seed)
    model = digits_net(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    train(model, optimizer, data, epochs=epochs, seed=seed, progress=progress)
    return model


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy of ``model`` in [0, 1]; its train/eval modes are as they were afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        guesses = torch.cat([model(part).argmax(1) for part in images.split(256)])
    finally:
        for module, mode in modes.items():
            module.training = mode
    return float((guesses == labels).float().mean())


def paper_schedule(data: Digits, *, epochs: int = EPOCHS) -> Schedule:
    """Return the stages the official code ran with here: of 30 epochs, projection in 0-8 and pruning in 8-18, five periods each."""
    return official_schedule(epochs * data.steps_per_epoch)


def compress_digits(
    seed: int,
    budget: Budget,
    *,
    data: Digits | None = None,
    epochs: int = EPOCHS,
    quantize: QuantConfig | None = None,
    schedule: Schedule | None = None,
    rules: Mapping[str, Any] | None = None,
    progress: Iterable[int] | None = None,
) -> dict[str, Any]:
    """Train the benchmark's network from scratch with QASSO, cut it, and measure what came out.

    Args:
        seed: of the initial weights and of the order of the batches.
        budget: what the finished network may cost.
        data: default :func:`load_digits`.
        quantize: default ``QuantConfig()``, weights only.
        schedule: default ``Schedule.for_steps(total)``.
        rules: further options of ``geta.qasso``; see :func:`geta_nb.bench.geta_run.compress`.

    Returns:
        JSON-able facts: ``accuracy`` of the cut network and ``masked_accuracy`` of the masked one, both in [0, 1], ``seconds``
        of training, and the keys of :meth:`Report.to_dict` that a table needs.
    """
    data = data or load_digits()
    torch.manual_seed(seed)
    run = Run(
        example=data.train_images[:2],
        calibration=tuple(calibration_batches(data)),
        total_steps=epochs * data.steps_per_epoch,
        train=lambda model, optimizer: train(model, optimizer, data, epochs=epochs, seed=seed, progress=progress),
        evaluate=lambda model: evaluate(model, data.test_images, data.test_labels),
        inner={"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
    )
    return {"seed": seed} | compress(digits_net(), run, budget, quantize=quantize, schedule=schedule, rules=rules, masked=True)
