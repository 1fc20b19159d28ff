"""Which devices there are to test on: the CPU always, CUDA where it is. In: nothing. Out: names, for ``pytest.mark.parametrize``."""

from __future__ import annotations

import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
