"""scikit-learn's digits as larger images of bytes: what stands in for a data set of labelled images, once written in its format."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geta_nb._extra import load

Labelled = tuple[Tensor, Tensor]
"""Images [N, 1, side, side], uint8, and labels [N], int64."""


def enlarged_digits(side: int) -> tuple[Labelled, Labelled]:
    """Return the 1797 digits, enlarged from 8 x 8: 1437 to train on, 360 to test, the classes in both alike.

    Args:
        side: pixels.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    source = load("sklearn.datasets", "bench").load_digits()
    rows = np.arange(len(source.target))
    train, test = load("sklearn.model_selection", "bench").train_test_split(rows, test_size=0.2, random_state=0, stratify=source.target)
    images = torch.tensor(source.images / 16.0, dtype=torch.float32)[:, None]
    large = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    pixels, labels = (255 * large).round().to(torch.uint8), torch.tensor(source.target)
    return (pixels[train], labels[train]), (pixels[test], labels[test])
