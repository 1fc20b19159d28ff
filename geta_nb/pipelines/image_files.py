"""Image files of a folder, read by Pillow as RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geta_nb._extra import load
from geta_nb.errors import InputError

ENDS = (".jpeg", ".jpg", ".png")


def image_files(folder: Path) -> list[Path]:
    """Return the PNG and JPEG files of a folder by name, without the folders inside it."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDS and file.is_file())


def open_image(file: Path) -> Any:
    """Return a file as a Pillow image in RGB.

    Raises:
        InputError: it cannot be decoded.
    """
    image = load("PIL.Image", "bench")
    try:
        with image.open(file, formats=("JPEG", "PNG")) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
        raise InputError("open_image: not a JPEG or PNG image.", at=file, got=str(error)[:200]) from error


def to_tensor(image: Any) -> Tensor:
    """Return a Pillow image as uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def read_image(file: Path) -> Tensor:
    """Return an image file as uint8 [3, H, W].

    Raises:
        InputError: it cannot be decoded.
    """
    return to_tensor(open_image(file))
