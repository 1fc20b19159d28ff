"""What the cuts of language models share: one target, a number of parameters, and 8-bit rounding at the end.

In: a trained network and rows of tokens. Out: a smaller network with at most so many parameters. Every such method is a function
``cut(model, rows, loss, *, parameters)``, which leaves ``model`` as it was; what is trained afterwards is the caller's matter.
Here is the plainest one, ``magnitude_cut``; ``llm_pruner`` and ``slicegpt`` are files of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from geta_nb.baselines.magnitude import importance
from geta_nb.baselines.space import removal_order
from geta_nb.config import QuantConfig
from geta_nb.geta import GETA

FLOAT_BYTES = 4
Loss = Callable[[nn.Module, Tensor], Tensor]


def remove_until(geta: GETA, order: NDArray[np.int64], parameters: int) -> nn.Module:
    """Mask groups in this order until at most ``parameters`` parameters are left, and return the cut network.

    Raises:
        BudgetError: out of reach with all of ``order`` gone.
    """
    count = geta.cost.prefix_for_target(order, FLOAT_BYTES * parameters, "size_bytes")
    geta.mask([int(group) for group in order[:count]])
    return geta.construct_subnet()


def magnitude_cut(model: nn.Module, rows: Tensor, loss: Loss, *, parameters: int) -> nn.Module:
    """Return the network without the groups of the least magnitude (``magnitude.importance``), all gone at once.

    Args:
        model: the trained network.
        rows: of tokens, [N, length]; the first one is for tracing.
        loss: not asked.
        parameters: at most so many stay.

    Raises:
        BudgetError: out of reach with one group left per family.
    """
    geta = GETA(copy.deepcopy(model), rows[:1], quantize=None)
    table = geta.groups.table
    scores = importance(table, dict(geta.model.named_parameters()))
    return remove_until(geta, removal_order(scores, np.asarray(table.family_of)), parameters)


def rounded(model: nn.Module, rows: Tensor, bits: int = 8) -> nn.Module:
    """Return the network with every weight matrix rounded to ``bits`` bits, symmetric, one range a tensor, nothing trained.

    It is a subnet: ``gt.save`` packs its codes, ``gt.export_onnx`` writes them as integers.

    Args:
        model: any network; it stays as it is.
        rows: of tokens, [N, length]; the first one is for tracing.
        bits: of every weight.
    """
    return GETA(copy.deepcopy(model), rows[:1], quantize=QuantConfig(initial_bits=bits)).construct_subnet()
