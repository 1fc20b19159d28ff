"""Carries what torch keeps per thread from the caller to the training thread, so that a step there computes what it would compute here.

Default dtype, random generators and deterministic mode belong to the process and need no carrying.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda")


def carry_torch_state() -> Callable[[ExitStack], None]:
    """Read grad mode, inference mode, autocast, default device and CUDA device of this thread; return what sets them in another one."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    casts = [(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in _AUTOCAST_DEVICES]
    device = torch.get_default_device()
    cuda = torch.cuda.current_device() if torch.cuda.is_available() and torch.cuda.is_initialized() else None

    def apply(stack: ExitStack) -> None:
        if cuda is not None:
            torch.cuda.set_device(cuda)
        if inference:
            stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.set_grad_enabled(grad))
        for kind, dtype, enabled in casts:
            if enabled:
                stack.enter_context(torch.autocast(kind, dtype=dtype))
        if device != torch.get_default_device():
            stack.enter_context(torch.device(device))

    return apply
