"""Super-resolution: a network that enlarges images (CARN), pairs of large and small images, PSNR.

In: a folder of PNG or JPEG images, or scikit-learn's two sample photographs. Out: patches to train on, whole images to measure on. The
small images are made by Pillow's bicubic reduction, as is usual. PSNR is measured on luma (BT.601) without a border of the scale's width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geta_nb._extra import load
from geta_nb.errors import InputError
from geta_nb.pipelines.batches import Batches
from geta_nb.pipelines.image_files import image_files, read_image
from geta_nb.pipelines.loop import Task

HELD_BACK = 10


@dataclass(frozen=True)
class Pair:
    """One image in two sizes: ``large`` [3, s H, s W] and ``small`` [3, H, W], both uint8."""

    large: Tensor
    small: Tensor


@dataclass(frozen=True)
class Enlarging:
    """Pairs of images.

    Args:
        train: images to cut patches from.
        test: images to measure on, whole.
        scale: how many times larger.
        patch: side of a training patch of the small image, in pixels.
        patches: how many patches make an epoch.
    """

    train: Sequence[Pair]
    test: Sequence[Pair]
    scale: int
    patch: int
    patches: int

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return random patches, (small [B, 3, p, p], large [B, 3, s p, s p]), float32 in [0, 1], mirrored and turned at random."""
        drawn = [self._patch(int(row), generator) for row in rows]
        return torch.stack([small for small, _ in drawn]).float() / 255, torch.stack([large for _, large in drawn]).float() / 255

    def _patch(self, row: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pair, s, p = self.train[row % len(self.train)], self.scale, self.patch
        room = [size - p + 1 for size in pair.small.shape[1:]]
        y, x, turns, mirror = (int(torch.randint(0, n, (), generator=generator)) for n in (*room, 4, 2))
        small, large = pair.small[:, y : y + p, x : x + p], pair.large[:, s * y : s * (y + p), s * x : s * (x + p)]
        turned = [torch.rot90(part, turns, (1, 2)) for part in (small, large)]
        small, large = (part.flip(-1) if mirror else part for part in turned)
        return small, large


def make_pair(large: Tensor, scale: int) -> Pair:
    """Return an image [3, H, W] uint8, cut to a multiple of ``scale``, and its bicubic reduction."""
    image = load("PIL.Image", "bench")
    height, width = (size // scale * scale for size in large.shape[1:])
    cut = large[:, :height, :width].contiguous()
    reduced = image.fromarray(cut.permute(1, 2, 0).numpy()).resize((width // scale, height // scale), image.Resampling.BICUBIC)
    return Pair(cut, torch.from_numpy(np.array(reduced)).permute(2, 0, 1).contiguous())


def sample_photographs() -> tuple[list[Tensor], list[Tensor]]:
    """Return scikit-learn's two photographs as four images: the left three quarters of each to train on, the rest to measure on."""
    photographs = load("sklearn.datasets", "bench").load_sample_images().images
    images = [torch.tensor(photograph).permute(2, 0, 1) for photograph in photographs]
    cuts = [3 * image.shape[2] // 4 for image in images]
    return [image[:, :, :cut] for image, cut in zip(images, cuts, strict=True)], [i[:, :, c:] for i, c in zip(images, cuts, strict=True)]


def load_pairs(data_dir: Path | None, *, scale: int, patch: int, patches: int, most: int | None = None) -> Enlarging:
    """Return the images of a folder, or the stand-in's. All are kept in memory: about 10 MB for one of 2000 x 1400 pixels.

    Args:
        data_dir: a folder with ``train`` and ``test`` inside it, or one of images, of which every tenth is held back.
        most: read so many of each at most; None: all.

    Raises:
        InputError: no images, or one that is smaller than a patch.
    """
    if data_dir is None:
        train, test = sample_photographs()
    else:
        parts = [data_dir / name for name in ("train", "test")]
        files = [image_files(part) for part in parts] if all(part.is_dir() for part in parts) else _split(image_files(data_dir))
        train, test = ([read_image(file) for file in part[:most]] for part in files)
    if not train or not test:
        raise InputError("load_pairs: too few images.", at=data_dir, expected="at least two", got=f"{len(train)} and {len(test)}")
    least = min(min(image.shape[1:]) for image in train)
    if least < patch * scale:
        raise InputError("load_pairs: an image is smaller than a patch.", at=data_dir, expected=f"{patch * scale} pixels", got=least)
    return Enlarging([make_pair(image, scale) for image in train], [make_pair(image, scale) for image in test], scale, patch, patches)


def _split(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    held = list(files[HELD_BACK - 1 :: HELD_BACK]) or list(files[-1:])
    return [file for file in files if file not in held], held


def luma(images: Tensor) -> Tensor:
    """Return BT.601 luma of images [..., 3, H, W] in [0, 1], in [16/255, 235/255]."""
    red, green, blue = images.unbind(-3)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255


def psnr(found: Tensor, wanted: Tensor, *, border: int) -> float:
    """Return the peak signal-to-noise ratio on luma, in dB, without ``border`` pixels on each side; at most 100."""
    difference = (luma(found.clamp(0, 1)) - luma(wanted))[..., border:-border, border:-border]
    return -10 * math.log10(max(float((difference.double() ** 2).mean()), 1e-10))


def mean_psnr(model: nn.Module, *, data: Enlarging) -> dict[str, float]:
    """Return the mean over the test images, in dB."""
    device = next(model.parameters()).device
    pairs = [(pair.small[None].float().to(device) / 255, pair.large[None].float().to(device) / 255) for pair in data.test]
    return {"psnr": math.fsum(psnr(model(small), large, border=data.scale) for small, large in pairs) / len(pairs)}


def bicubic(data: Enlarging) -> float:
    """Return the PSNR of Pillow's bicubic enlargement, in dB: what a network has to beat."""
    image = load("PIL.Image", "bench")
    values = []
    for pair in data.test:
        size = pair.large.shape[2], pair.large.shape[1]
        large = image.fromarray(pair.small.permute(1, 2, 0).numpy()).resize(size, image.Resampling.BICUBIC)
        values.append(psnr(torch.from_numpy(np.array(large)).permute(2, 0, 1).float() / 255, pair.large.float() / 255, border=data.scale))
    return math.fsum(values) / len(values)


def absolute_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean absolute difference."""
    small, large = batch
    return F.l1_loss(model(small), large)


def enlarging_task(data: Enlarging, *, batch_size: int, seed: int) -> Task:
    """Return the task of enlarging images, measured in dB."""
    return Task(Batches(data.patches, batch_size, data.draw, seed=seed), absolute_loss, partial(mean_psnr, data=data))
