"""ImageNet's form: a folder with ``train`` and ``val``, a folder per class in each, JPEG or PNG images in these; decoded when asked for.

In: the folder. Out: standardised batches. Training images are random parts of 8 to 100 % of the area, mirrored half of the time; the ones
that are held back are reduced to 256/224 of the side and cut in the middle. The stand-in is such a folder, made of two photographs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from geta_nb._extra import load
from geta_nb.errors import InputError
from geta_nb.pipelines.image_files import image_files, open_image, to_tensor
from geta_nb.pipelines.images import Labelled
from geta_nb.pipelines.superres import sample_photographs

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, channel by channel, in [0, 1]."""

Files = Sequence[tuple[Path, int]]


@dataclass(frozen=True)
class ImageFolder:
    """Image files of classes.

    Args:
        train, held: (file, label).
        classes: names of the labels, which are the folders' names in order.
        size: side of the images that the network sees, in pixels.
        workers: processes that decode the images that are held back.
    """

    train: Files
    held: Files
    classes: Sequence[str]
    size: int = 224
    workers: int = 0

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Number of images that are held back."""
        return len(self.held)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Labelled:
        """Return random parts of training images and their labels."""
        images = [random_part(open_image(self.train[int(row)][0]), self.size, generator) for row in rows]
        return standardised(torch.stack(images)), torch.tensor([self.train[int(row)][1] for row in rows])

    def test_batches(self, batch_size: int) -> Iterator[Labelled]:
        """Yield the middles of the images that are held back."""
        middles: Any = _Middles(self.held, self.size)
        for images, labels in DataLoader(middles, batch_size=batch_size, num_workers=self.workers):
            yield standardised(images), labels


@dataclass(frozen=True)
class _Middles(Dataset[tuple[Tensor, int]]):
    files: Files
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        return middle_part(open_image(file), self.size), label


def standardised(images: Tensor) -> Tensor:
    """Return uint8 images [B, 3, H, W] as float32, standardised by ImageNet's mean and deviation."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (images.float() / 255 - mean) / deviation


def random_part(image: Any, size: int, generator: torch.Generator) -> Tensor:
    """Return a random part of a Pillow image, of 8 to 100 % of its area and 3:4 to 4:3, as uint8 [3, size, size]."""
    share, shape, x, y, mirror = torch.rand(5, generator=generator).tolist()
    area = image.width * image.height * (0.08 + 0.92 * share)
    ratio = math.exp((2 * shape - 1) * math.log(4 / 3))
    width = min(image.width, max(1, round(math.sqrt(area * ratio))))
    height = min(image.height, max(1, round(math.sqrt(area / ratio))))
    left, top = round(x * (image.width - width)), round(y * (image.height - height))
    part = image.resize((size, size), load("PIL.Image", "bench").Resampling.BILINEAR, box=(left, top, left + width, top + height))
    tensor = to_tensor(part)
    return tensor.flip(-1) if mirror < 0.5 else tensor


def middle_part(image: Any, size: int) -> Tensor:
    """Return the middle of a Pillow image whose shorter side was made 256/224 of ``size``, as uint8 [3, size, size]."""
    scale = round(size * 256 / 224) / min(image.width, image.height)
    width, height = (max(size, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), load("PIL.Image", "bench").Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return to_tensor(resized.crop((left, top, left + size, top + size)))


def read_image_folder(folder: str | Path, *, size: int = 224, workers: int = 0) -> ImageFolder:
    """Return the images of a folder in ImageNet's form.

    Raises:
        InputError: ``train`` or ``val`` is missing or empty, or their classes differ.
    """
    place = Path(folder)
    names = {part: _classes(place / part) for part in ("train", "val")}
    if names["train"] != names["val"]:
        differ = sorted(set(names["train"]) ^ set(names["val"]))
        raise InputError("read_image_folder: train and val have other classes.", at=place, got=", ".join(differ[:5]))
    train, held = (
        [(file, label) for label, name in enumerate(names["train"]) for file in image_files(place / part / name)] for part in names
    )
    for part, files in (("train", train), ("val", held)):
        if not files:
            raise InputError("read_image_folder: no images.", at=place / part, expected="JPEG or PNG files in a folder per class")
    return ImageFolder(train, held, names["train"], size, workers)


def _classes(place: Path) -> list[str]:
    if not place.is_dir():
        raise InputError("read_image_folder: a folder is missing.", at=place, expected="train and val, with a folder per class in each")
    return sorted(path.name for path in place.iterdir() if path.is_dir())


def write_stand_in(folder: str | Path, *, train: int, held: int, side: int, seed: int = 0) -> Path:
    """Write square parts of scikit-learn's two photographs as JPEG files in ImageNet's form; returns the folder.

    Args:
        train, held: images per class; the ones that are held back come from parts of the photographs that no training image shows.
        side: in pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    image = load("PIL.Image", "bench")
    for part, count, photographs in zip(("train", "val"), (train, held), sample_photographs(), strict=True):
        for name, photograph in zip(("building", "flower"), photographs, strict=True):
            place = Path(folder) / part / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                y, x = (int(torch.randint(0, room - side + 1, (), generator=generator)) for room in photograph.shape[1:])
                pixels = photograph[:, y : y + side, x : x + side].permute(1, 2, 0).contiguous().numpy()
                image.fromarray(pixels).save(place / f"{number:04}.JPEG", quality=90)
    return Path(folder)


def _some(files: Files, most: int) -> Files:
    return files[:: max(1, -(-len(files) // most))]


def load_images(data_dir: Path | None, *, size: int, workers: int = 0, smoke: bool = False) -> tuple[ImageFolder, Any]:
    """Return the images of a folder, or of the stand-in, and what keeps the stand-in's folder alive.

    Args:
        smoke: a few images of each part; of all classes, as far as they go.
    """
    counts = (32, 12) if smoke else (400, 100)
    if data_dir is not None:
        data = read_image_folder(data_dir, size=size, workers=workers)
        train, held = (_some(files, 2 * count) if smoke else files for files, count in zip((data.train, data.held), counts, strict=True))
        return ImageFolder(train, held, data.classes, size, workers), None
    folder = tempfile.TemporaryDirectory(prefix="geta_nb_images_")
    write_stand_in(folder.name, train=counts[0], held=counts[1], side=max(64, size))
    return read_image_folder(folder.name, size=size, workers=workers), folder
