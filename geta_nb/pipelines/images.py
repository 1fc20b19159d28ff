"""Labelled images in memory, and what any classifier's run needs: batches to train on, batches to measure on, a loss, a measure.

In: uint8 images, as files of image data hold them. Out: standardised float32 batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geta_nb.pipelines.batches import Batches, to_device
from geta_nb.pipelines.loop import Task

Labelled = tuple[Tensor, Tensor]
"""Images [B, 3, H, W], float32, and labels [B], int64."""


class LabelledImages(Protocol):
    """Images of classes, split in two: in memory (:class:`ImageArrays`) or on disk (``image_folder.ImageFolder``)."""

    classes: Sequence[str]

    @property
    def train_size(self) -> int:
        """Number of training images."""

    @property
    def test_size(self) -> int:
        """Number of images that are held back."""

    def draw(self, rows: Tensor, generator: torch.Generator) -> Labelled:
        """Return augmented training images."""

    def test_batches(self, batch_size: int) -> Iterator[Labelled]:
        """Yield the images that are held back, as they are."""


@dataclass(frozen=True)
class ImageArrays:
    """Images and labels in memory.

    Args:
        train_images: [N, 3, H, W], uint8.
        train_labels: [N], int64.
        test_images: [M, 3, H, W], uint8.
        test_labels: [M], int64.
        classes: names of the labels.
        shift: training images are moved by up to so many pixels, over black.
        mirror: training images are mirrored half of the time (not for digits or letters).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: Sequence[str]
    shift: int = 4
    mirror: bool = True

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train_labels)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self.test_labels)

    def first(self, train: int, test: int) -> ImageArrays:
        """Return the first so many images of each part."""
        parts = (self.train_images[:train], self.train_labels[:train], self.test_images[:test], self.test_labels[:test])
        return ImageArrays(*parts, self.classes, self.shift, self.mirror)

    def standardised(self, images: Tensor) -> Tensor:
        """Return images as float32 of mean 0 and deviation 1 over the training images, channel by channel."""
        mean, deviation = self._moments()
        return (images.float() / 255 - mean) / deviation

    def _moments(self) -> Labelled:
        # over at most 10 000 images: enough for three digits
        sample = self.train_images[:: max(1, self.train_size // 10_000)].float() / 255
        return sample.mean((0, 2, 3)).view(3, 1, 1), sample.std((0, 2, 3)).clamp_min(1e-3).view(3, 1, 1)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Labelled:
        """Return training images, shifted and mirrored at random, and their labels."""
        images = augment(self.train_images[rows], generator, shift=self.shift, mirror=self.mirror)
        return self.standardised(images), self.train_labels[rows]

    def test_batches(self, batch_size: int) -> Iterator[Labelled]:
        """Yield the test images in order."""
        for images, labels in zip(self.test_images.split(batch_size), self.test_labels.split(batch_size), strict=True):
            yield self.standardised(images), labels


def augment(images: Tensor, generator: torch.Generator, *, shift: int, mirror: bool) -> Tensor:
    """Return images [B, 3, H, W], each moved by up to ``shift`` pixels over black, and mirrored half of the time when asked."""
    size = images.shape[-2:]
    padded = F.pad(images, (shift,) * 4)
    offsets = torch.randint(0, 2 * shift + 1, (len(images), 2), generator=generator).tolist()
    moved = [image[:, y : y + size[0], x : x + size[1]] for image, (y, x) in zip(padded, offsets, strict=True)]
    if mirror:
        flips = torch.rand(len(images), generator=generator) < 0.5
        moved = [image.flip(-1) if flip else image for image, flip in zip(moved, flips.tolist(), strict=True)]
    return torch.stack(moved)


def logits_of(outputs: Any) -> Tensor:
    """Return the logits of a classifier: its output, or that output's ``logits`` where it has some."""
    logits: Tensor = getattr(outputs, "logits", outputs)
    return logits


def image_loss(model: nn.Module, batch: Labelled) -> Tensor:
    """Return the cross-entropy of a classifier on a batch."""
    images, labels = batch
    return F.cross_entropy(logits_of(model(images)), labels)


def accuracy(model: nn.Module, *, data: LabelledImages, batch_size: int = 256) -> dict[str, float]:
    """Return the share of held-back images whose class is the likeliest one."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    right = torch.zeros((), dtype=torch.int64, device=device)
    for batch in data.test_batches(batch_size):
        images, labels = to_device(batch, device)
        right += (logits_of(model(images)).argmax(-1) == labels).sum()
    return {"accuracy": float(right) / data.test_size}


def image_task(data: LabelledImages, *, batch_size: int, seed: int) -> Task:
    """Return the task of telling the classes of images apart, measured by :func:`accuracy` on the held-back ones."""
    # batch norms fail on a batch of one, so the rest of an epoch is left out
    batches = Batches(data.train_size, batch_size, data.draw, seed=seed, drop_last=True)
    return Task(batches, image_loss, partial(accuracy, data=data))
