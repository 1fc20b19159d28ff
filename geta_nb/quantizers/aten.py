"""A quantizer as plain ATen nodes, to be put into a graph that was traced without it. Beside ``fake_quant``, whose formula it is."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from geta_nb.quantizers.fake_quant import fake_quantize_aten
from geta_nb.quantizers.gradients import NARROW, Codes

NUMBERS = ("step_size", "clip_max", "exponent")
"""What a quantizer reads beside its tensor, in the order of the program's inputs."""
WRITTEN_AT = f'File "{fake_quantize_aten.__code__.co_filename}", line {fake_quantize_aten.__code__.co_firstlineno}, in fake_quantize'
"""Where the formula stands, as a line of a trace."""


@cache
def branch_program(value: torch.dtype, numbers: torch.dtype, kind: Codes = NARROW) -> fx.Graph:
    """Return the formula as a graph: placeholders for x and :data:`NUMBERS`, ATen operators, one output of the type of x.

    Args:
        value: dtype of x.
        numbers: dtype of the numbers; one for all of x, or one a channel: the operators are the same.
        kind: which codes there are.
    """
    x, *rest = torch.empty(2, dtype=value, device="meta"), *(torch.empty((), dtype=numbers, device="meta") for _ in NUMBERS)
    return make_fx(partial(fake_quantize_aten, kind=kind))(x, *rest).graph
