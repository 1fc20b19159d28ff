"""Fashion-MNIST as a task for every method: 28 x 28 grey images of ten kinds of clothing, 60 000 to train on and 10 000 to test on.

In: the folder of its four IDX files. Out: a :class:`~geta_nb.baselines.task.Task`. The images that a run is judged by are read
from disk when it is judged, so no training can see them. Nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from geta_nb.baselines.task import Task, accuracy
from geta_nb.bench.idx_files import find_idx, read_idx
from geta_nb.bench.small_net import CLASSES, small_net
from geta_nb.errors import InputError

EPOCHS, BATCH = 8, 128
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4
SIDE, HELD_BACK = 28, 10_000
TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
HOW_TO_GET = "apt-get install dataset-fashion-mnist (Debian), or --data-dir with the files of github.com/zalandoresearch/fashion-mnist"
SMOKE_IMAGES, SMOKE_EPOCHS = 512, 4
"""Of a smoke run: four epochs, so that each phase of each method has at least one."""

Labelled = tuple[Tensor, Tensor]


def usual_folder() -> Path:
    """Return where the data lie unless they are elsewhere: ``datasets/fashion-mnist`` below a folder of shared data."""
    shares = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    places = [Path(share) / "datasets" / "fashion-mnist" for share in shares.split(":") if share]
    return next((place for place in places if place.is_dir()), places[-1])


def check_folder(folder: Path) -> None:
    """Check that the four files are there.

    Raises:
        InputError: one is missing; says how to get them.
    """
    missing = [name for name in (*TRAIN, *TEST) if find_idx(folder, name) is None]
    if missing:
        expected = f"{missing[0]}, or the same with .gz"
        raise InputError("fashion: files are missing.", at=folder, expected=expected, got="no such file", hint=HOW_TO_GET)


def read_pair(folder: Path, names: tuple[str, str]) -> Labelled:
    """Return images [N, 1, 28, 28], uint8, and labels [N], int64.

    Raises:
        InputError: a file is missing or damaged, or the two do not fit each other.
    """
    check_folder(folder)
    files = [found for name in names if (found := find_idx(folder, name)) is not None]
    images, labels = (read_idx(file, axes=axes) for file, axes in zip(files, (3, 1), strict=True))
    if images.shape != (len(labels), SIDE, SIDE) or not len(labels):
        expected, got = f"at least one image, {SIDE} x {SIDE}, each with a label", f"{tuple(images.shape)}, {len(labels)} labels"
        raise InputError("fashion: images and labels do not fit.", at=files[0], expected=expected, got=got)
    if int(labels.max()) >= CLASSES:
        raise InputError("fashion: a label has no class.", at=files[1], expected=f"0 to {CLASSES - 1}", got=int(labels.max()))
    return images[:, None], labels.long()


@dataclass(frozen=True, eq=False)
class Fashion:
    """What a run trains on, and what it is judged by at its end.

    Args:
        folder: of the four files.
        validation: train on all but the last 10 000 training images (the last sixth of a smaller set) and judge by those, with
            which options are chosen; else train on all and judge by the test images.
        first: train on, and judge by, the first so many images alone; None: by all.
    """

    folder: Path
    validation: bool = False
    first: int | None = None

    @cached_property
    def train(self) -> Labelled:
        """Training images, uint8, and labels."""
        images, labels = read_pair(self.folder, TRAIN)
        end = len(labels) - _held_back(len(labels)) if self.validation else len(labels)
        return images[:end][: self.first].clone(), labels[:end][: self.first].clone()

    def judges(self) -> Labelled:
        """Return the images that no training sees, and their labels; read anew each time."""
        images, labels = read_pair(self.folder, TRAIN if self.validation else TEST)
        start = len(labels) - _held_back(len(labels)) if self.validation else 0
        return images[start:][: self.first], labels[start:][: self.first]

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and deviation of the training pixels, of 0 .. 1."""
        pixels = self.train[0].double() / 255
        return float(pixels.mean()), max(float(pixels.std()), 1e-3)

    def standardised(self, images: Tensor) -> Tensor:
        """Return images as float32, of mean 0 and deviation 1 over the training images."""
        mean, deviation = self.moments
        return (images.float() / 255 - mean) / deviation

    def batches(self, generator: torch.Generator) -> Iterator[Labelled]:
        """Yield one shuffled epoch of (images [B, 1, 28, 28], labels [B]); each image is mirrored half of the time."""
        images, labels = self.train
        for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
            mirrored = torch.rand(len(rows), generator=generator) < 0.5
            part = self.standardised(images[rows])
            yield torch.where(mirrored[:, None, None, None], part.flip(-1), part), labels[rows]

    def evaluate(self, model: nn.Module) -> float:
        """Return the accuracy in [0, 1] on the images that no training sees."""
        images, labels = self.judges()
        return accuracy(model, self.standardised(images), labels)


def _held_back(n: int) -> int:
    return min(HELD_BACK, n // 6)


def fashion_net(width: float = 1.0) -> nn.Sequential:
    """Return the network: the digits benchmark's with one input channel and stride 2 in its first layer."""
    return small_net(width, in_channels=1, stride=2)


def fashion_task(folder: Path, *, validation: bool = False, smoke: bool = False) -> Task:
    """Return the task; see :class:`Fashion`. ``smoke``: few images and epochs, to see that a method runs."""
    data = Fashion(folder, validation, SMOKE_IMAGES if smoke else None)
    images, labels = data.train
    some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:2048]
    return Task(
        build=partial(fashion_net, 1.0),
        batches=data.batches,
        steps_per_epoch=-(-len(labels) // BATCH),
        calibration=data.standardised(images[: 8 * BATCH]),
        check=(data.standardised(images[some]), labels[some]),
        evaluate=data.evaluate,
        epochs=SMOKE_EPOCHS if smoke else EPOCHS,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    )
