"""What a network costs: MACs, BOPs in both countings, parameters and bytes, for any set of living groups and any bit widths.

In: one :class:`OperatorCost` per operator that multiplies and one :class:`ParameterCost` per parameter, read off the trace.
Out: a :class:`CostModel`, exact for given groups and bits. Stage: after the groups, before the budget.

Two countings of MACs and BOPs stand side by side. The paper's: the product of two activations (attention's QK^T and AV) counts 0. The full
one (suffix ``_full``): it counts like any other. An operand without a quantizer counts 32 bits. The denominator of a relative figure is
always the dense fp32 model, counted in the same way: 32 * 32 * its MACs. Source: Qu et al. 2025, arXiv:2502.16638.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geta_nb.errors import BudgetError, ConfigError
from geta_nb.extents import BoolArray, Extent, ExtentTable, IntArray
from geta_nb.views import Shown

FP32_BITS = 32
Bits = Mapping[str, float]
Measure = Literal["relative_bops", "relative_bops_full", "size_bytes"]


@dataclass(frozen=True)
class OperatorCost:
    """One operator that multiplies.

    Args:
        layer: unique name of the operator: its module path, or the node's name.
        module_path: dotted path of the module that calls it.
        operator: kind, such as ``"conv2d"``, ``"linear"``, ``"matmul"``, ``"sdpa"``.
        macs: multiply-accumulates as an extent over the living groups.
        weight: layer key of its weight quantizer, None when there is none (32 bits).
        activation: layer key of its input quantizer, None when there is none (32 bits).
        attention: product of two activations: 0 in the paper's counting. Both keys then name activation quantizers.
        channels: output channels as an extent, None when not known; shown in reports only.
    """

    layer: str
    module_path: str
    operator: str
    macs: Extent
    weight: str | None = None
    activation: str | None = None
    attention: bool = False
    channels: Extent | None = None


@dataclass(frozen=True)
class ParameterCost:
    """One parameter tensor; tied parameters are one tensor and are listed once.

    Args:
        name: original parameter name, such as ``"conv1.weight"``.
        numel: number of elements as an extent over the living groups.
        layer: layer key of its weight quantizer, None when it has none.
        bits: storage width of one element when it has no quantizer: that of its dtype, in bits.
    """

    name: str
    numel: Extent
    layer: str | None = None
    bits: int = FP32_BITS
