"""CIFAR-10 in its binary form, read and written; scikit-learn's digits in the same form are the stand-in.

The binary version of the data set (https://www.cs.toronto.edu/~kriz/cifar.html) is six files of records: one byte of label, then 3072
bytes: 32 x 32 of red, of green, of blue, row by row. The Python version of the same page is pickled; unpickling runs whatever a file
says, so it is not read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geta_nb.errors import InputError
from geta_nb.pipelines.images import ImageArrays
from geta_nb.pipelines.stand_ins import enlarged_digits

SIDE, RECORD = 32, 1 + 3 * 32 * 32
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE, NAMES_FILE = "test_batch.bin", "batches.meta.txt"
WHERE = "cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked"


def read_cifar10(folder: str | Path, *, shift: int = 4, mirror: bool = True) -> ImageArrays:
    """Return CIFAR-10 from the six files of its binary version.

    Args:
        folder: where the files are, or the folder above (``cifar-10-batches-bin`` inside it).

    Raises:
        InputError: a file is missing, or is no whole number of records, or has a label that has no name.
    """
    place = Path(folder)
    if not (place / TEST_FILE).exists() and (place / "cifar-10-batches-bin").is_dir():
        place = place / "cifar-10-batches-bin"
    names = (place / NAMES_FILE).read_text().split() if (place / NAMES_FILE).exists() else [str(label) for label in range(10)]
    train = [_records(place / file, len(names)) for file in TRAIN_FILES]
    test_images, test_labels = _records(place / TEST_FILE, len(names))
    images, labels = (torch.cat([part[i] for part in train]) for i in range(2))
    return ImageArrays(images, labels, test_images, test_labels, names, shift, mirror)


def _records(file: Path, n_classes: int) -> tuple[Tensor, Tensor]:
    if not file.exists():
        raise InputError("read_cifar10: a file is missing.", at=file, expected=WHERE, got="no such file")
    data = np.fromfile(file, dtype=np.uint8)
    if len(data) == 0 or len(data) % RECORD:
        raise InputError(
            "read_cifar10: not a file of CIFAR-10's binary version.", at=file, expected=f"records of {RECORD} bytes",
            got=f"{len(data)} bytes",
        )  # fmt: skip
    records = torch.from_numpy(data).view(-1, RECORD)
    labels = records[:, 0].long()
    if int(labels.max()) >= n_classes:
        raise InputError("read_cifar10: a label has no name.", at=file, expected=f"0 to {n_classes - 1}", got=int(labels.max()))
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE).clone(), labels


def write_cifar10(folder: str | Path, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], names: Sequence[str]) -> Path:
    """Write images [N, 3, 32, 32] uint8 and labels [N] in the form of CIFAR-10's binary version; returns the folder."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / NAMES_FILE).write_text("\n".join(names) + "\n")
    parts = zip(*(tensor.tensor_split(len(TRAIN_FILES)) for tensor in train), strict=True)
    for file, (images, labels) in [*zip(TRAIN_FILES, parts, strict=True), (TEST_FILE, test)]:
        records = torch.cat([labels.to(torch.uint8)[:, None], images.flatten(1)], 1)
        records.numpy().tofile(place / file)
    return place


def digits_as_cifar10() -> ImageArrays:
    """Return scikit-learn's 1797 digits, written in the form of CIFAR-10 and read back by its reader: 1437 to train on, 360 to test.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    train, test = ((images.repeat(1, 3, 1, 1), labels) for images, labels in enlarged_digits(SIDE))
    with tempfile.TemporaryDirectory() as folder:
        write_cifar10(folder, train, test, [str(digit) for digit in range(10)])
        return read_cifar10(folder, shift=2, mirror=False)


def load_cifar10(data_dir: Path | None, *, smoke: bool = False) -> ImageArrays:
    """Return CIFAR-10 from a folder, or the digits in its form; in a smoke run, a few hundred images of it."""
    data = digits_as_cifar10() if data_dir is None else read_cifar10(data_dir)
    return data.first(256, 120) if smoke else data
