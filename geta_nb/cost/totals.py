"""Cost facts and figures as plain data: what an operator and a parameter are made of, what a network comes to.

:class:`OperatorCost` and :class:`ParameterCost` are read off the trace by the room ``qadg`` and go into the
``CostModel`` of ``model``; :class:`Costs` comes out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from geta_nb.groups import Extent
from geta_nb.views import Shown

FP32_BITS = 32
CHANNEL_NUMBERS = 2
"""A channel with a range of its own has a step size and a clip value."""
FIGURES = ("macs", "macs_full", "bops", "bops_full", "parameters", "size_bytes")


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
        channels: channels whose quantizer has a step size and a clip value each, as an extent; None: two numbers for all, which no size
            counts.
        number_bits: storage width of such a number, in bits.
    """

    name: str
    numel: Extent
    layer: str | None = None
    bits: int = FP32_BITS
    channels: Extent | None = None
    number_bits: int = FP32_BITS


@dataclass(frozen=True)
class LayerCost:
    """One row: an operator with the parameters of its module, or parameters that no operator multiplies (``operator="parameters"``).

    ``None`` bits: no quantizer there; ``None`` channels: not known.
    """

    layer: str
    module_path: str
    operator: str
    macs: int = 0
    macs_full: int = 0
    bops: float = 0.0
    bops_full: float = 0.0
    parameters: int = 0
    size_bytes: float = 0.0
    weight_bits: float | None = None
    input_bits: float | None = None
    channels: int | None = None


@dataclass(frozen=True, repr=False)
class Totals(Shown):
    """The figures of one network: MACs and BOPs in both countings, number of parameters, bytes.

    ``size_bytes`` is sum(numel * bits) / 8, and two numbers for each channel that has a range of its own, without padding or headers;
    relative figures are shares of the dense fp32 model, 1 = equal.
    The rows of ``layers`` add up to the totals.
    """

    macs: int
    macs_full: int
    bops: float
    bops_full: float
    relative_bops: float
    relative_bops_full: float
    parameters: int
    size_bytes: float
    layers: tuple[LayerCost, ...]

    @property
    def size_bits(self) -> float:
        """Bits of all parameters."""
        return self.size_bytes * 8

    def figures(self) -> dict[str, Any]:
        """Return the totals alone, JSON-able."""
        return {field.name: getattr(self, field.name) for field in fields(Totals) if field.name != "layers"}


@dataclass(frozen=True, repr=False)
class Costs(Totals):
    """The figures of one network, and those of the ``dense`` fp32 model they are compared with."""

    dense: Totals


@dataclass(frozen=True)
class LayerReport:
    """One layer in the dense fp32 model and in the finished network; paper's counting unless ``_full``; None: not there, not known."""

    layer: str
    module_path: str
    operator: str
    channels_before: int | None
    channels_after: int | None
    bits: float | None
    activation_bits: float | None
    macs_before: int | None
    macs_after: int
    macs_full_before: int | None
    macs_full_after: int
    bops_before: float | None
    bops_after: float
    bops_full_before: float | None
    bops_full_after: float
    parameters_before: int | None
    parameters_after: int
    size_bytes_before: float | None
    size_bytes_after: float


def compare_layers(costs: Costs) -> tuple[LayerReport, ...]:
    """Return one row per layer, beside the layer of the same name in the dense fp32 model."""
    dense = {row.layer: row for row in costs.dense.layers}
    rows = []
    for row in costs.layers:
        figures: dict[str, Any] = {f"{name}_after": getattr(row, name) for name in ("channels", *FIGURES)}
        figures |= {f"{name}_before": getattr(dense.get(row.layer), name, None) for name in ("channels", *FIGURES)}
        bits: dict[str, Any] = {"bits": row.weight_bits, "activation_bits": row.input_bits}
        rows.append(LayerReport(row.layer, row.module_path, row.operator, **bits, **figures))
    return tuple(rows)
