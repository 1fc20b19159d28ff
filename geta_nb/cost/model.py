"""What a network costs: MACs, BOPs in both countings, parameters and bytes, for any set of living groups and any bit widths.

In: one :class:`OperatorCost` per operator that multiplies and one :class:`ParameterCost` per parameter, read off the trace.
Out: a :class:`CostModel`, exact for given groups and bits. Stage 5, before ``preview``.

Two countings of MACs and BOPs stand side by side. The paper's: the product of two activations (attention's QK^T and AV) counts 0. The full
one (suffix ``_full``): it counts like any other. An operand without a quantizer counts 32 bits. The denominator of a relative figure is
always the dense fp32 model, counted in the same way: 32 * 32 * its MACs. Source: Qu et al. 2025, arXiv:2502.16638.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geta_nb.cost.totals import CHANNEL_NUMBERS, FIGURES, FP32_BITS, Costs, LayerCost, OperatorCost, ParameterCost, Totals
from geta_nb.errors import BudgetError, ConfigError
from geta_nb.groups import BoolArray, Extent, ExtentTable

__all__ = ["MEASURES", "Bits", "CostModel", "Costs", "LayerCost", "OperatorCost", "ParameterCost", "Totals"]

MEASURES = ("relative_bops", "relative_bops_full", "size_bytes")
Bits = Mapping[str, float]
FloatArray = NDArray[np.float64]


class CostModel:
    """Evaluates what a network costs for given living groups and bits.

    Args:
        operators: every operator that multiplies, names unique.
        parameters: every parameter tensor, once.
        n_groups: number of groups the extents speak of.
        dense: totals of the dense fp32 model, if it is not this network with all groups alive: a second compression passes the first's.

    Raises:
        ConfigError: a name is listed twice.
    """

    def __init__(
        self, operators: Sequence[OperatorCost], parameters: Sequence[ParameterCost], n_groups: int, *, dense: Totals | None = None
    ) -> None:
        for kind, names in (("operator", [op.layer for op in operators]), ("parameter", [p.name for p in parameters])):
            name, times = next(iter(Counter(names).most_common(1)), ("", 0))
            if times > 1:
                raise ConfigError(f"CostModel: {kind} listed twice.", at=name, expected="unique names; tied parameters once")
        self.operators, self.parameters, self.n_groups = tuple(operators), tuple(parameters), n_groups
        self._macs = ExtentTable([op.macs for op in operators], n_groups)
        self._numel = ExtentTable([p.numel for p in parameters], n_groups)
        self._channels = ExtentTable([p.channels or Extent(0) for p in parameters], n_groups)
        self._paper = np.array([not op.attention for op in operators], dtype=bool)
        self.dense = dense or self._dense_fp32()

    def relative_bops(self, alive: BoolArray, weight_bits: Bits, activation_bits: Bits) -> float:
        """BOPs over those of the dense fp32 model, paper's counting; fast."""
        return self.measure("relative_bops", weight_bits, activation_bits)(alive)

    def relative_bops_full(self, alive: BoolArray, weight_bits: Bits, activation_bits: Bits) -> float:
        """BOPs over those of the dense fp32 model, products of two activations included; fast."""
        return self.measure("relative_bops_full", weight_bits, activation_bits)(alive)

    def size_bytes(self, alive: BoolArray, weight_bits: Bits, activation_bits: Bits | None = None) -> float:
        """sum(numel * bits) / 8 and the numbers of channels, in bytes; activation bits make no difference; fast."""
        return self.measure("size_bytes", weight_bits, activation_bits or {})(alive)

    def whole(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the multiply-accumulates of each operator and the elements of each parameter while all groups live."""
        everything = np.ones(self.n_groups, dtype=bool)
        return self._macs.counts(everything), self._numel.counts(everything)

    def measure(self, name: str, weight_bits: Bits, activation_bits: Bits) -> Callable[[BoolArray], float]:
        """Return one figure as a function of the living groups, with everything but them worked out beforehand.

        Args:
            name: one of :data:`MEASURES`.
            weight_bits: layer -> bits of its weight quantizer; a layer left out counts its dtype's bits in size, 32 in BOPs.
            activation_bits: the same for input quantizers.

        Returns:
            Function of ``alive`` (bool, [G]); smaller or equal when fewer groups live.

        Raises:
            ConfigError: an unknown name.
        """
        rates = self.rates(name, weight_bits, activation_bits)
        if name != "size_bytes":
            return lambda alive: float(rates @ self._macs.counts(alive))
        element, channel = np.split(rates, 2)
        if not channel.any():
            return lambda alive: float(element @ self._numel.counts(alive))
        return lambda alive: float(element @ self._numel.counts(alive) + channel @ self._channels.counts(alive))

    def rates(self, name: str, weight_bits: Bits, activation_bits: Bits) -> FloatArray:
        """Return what each unit of a figure costs, [U]: the figure is ``rates @ amounts``; arguments as for :meth:`measure`.

        Units are operators (relative figures), or parameters and then their channels' numbers (bytes).
        """
        if name not in MEASURES:
            raise ConfigError("CostModel.measure: no such figure.", expected=", ".join(MEASURES), got=repr(name))
        if name == "size_bytes":
            found: FloatArray = np.concatenate([self._parameter_bits(weight_bits), self._channel_bits(weight_bits)]) / 8
            return found
        full = name == "relative_bops_full"
        bops = self.dense.bops_full if full else self.dense.bops
        weights, inputs = self._operand_bits(weight_bits, activation_bits)
        # Without any product there is nothing to compare: the share is 0, not 0 / 0.
        shares: FloatArray = weights * inputs * (self._paper | full) / (bops or 1.0)
        return shares

    def amounts(self, name: str, alive: BoolArray) -> FloatArray:
        """Return how many of each unit there are while the groups ``alive`` (bool, [G]) live, [U]: see :meth:`rates`."""
        if name == "size_bytes":
            return np.concatenate([self._numel.counts(alive), self._channels.counts(alive)]).astype(np.float64)
        return self._macs.counts(alive).astype(np.float64)

    def units_of(self, name: str) -> dict[tuple[str, str], dict[int, int]]:
        """Return ("weight" | "input", layer) -> units whose rate is in proportion to that many powers of its bits: see :meth:`rates`."""
        found: dict[tuple[str, str], dict[int, int]] = {}
        if name == "size_bytes":
            for index, parameter in enumerate(self.parameters):
                if parameter.layer is not None:
                    found.setdefault(("weight", parameter.layer), {})[index] = 1
            return found
        for index, op in enumerate(self.operators):
            for kind, layer in (("input" if op.attention else "weight", op.weight), ("input", op.activation)):
                if layer is not None:
                    powers = found.setdefault((kind, layer), {})
                    powers[index] = powers.get(index, 0) + 1
        return found

    def prefix_for_target(
        self,
        order: Sequence[int] | NDArray[np.int64],
        target: float,
        measure: str,
        *,
        alive: BoolArray | None = None,
        weight_bits: Bits | None = None,
        activation_bits: Bits | None = None,
        settle: Callable[[BoolArray], BoolArray] | None = None,
    ) -> int:
        """Return the smallest n such that removing ``order[:n]`` brings the network to ``target`` or under it.

        Cost never rises when a group goes, so n is found by bisection: about log2(G) evaluations.

        Args:
            order: groups in the order they would go.
            target: the cost to reach, in the unit of ``measure``.
            measure: one of :data:`MEASURES`.
            alive: groups that live now, bool [G]; None: all.
            weight_bits: bits of the finished network; None: fp32.
            activation_bits: the same for input quantizers.
            settle: what else becomes of a choice of living groups, such as rounding up; must keep more where it is given more.

        Raises:
            BudgetError: not even removing all of ``order`` is enough.
        """
        start = np.ones(self.n_groups, dtype=bool) if alive is None else alive
        evaluate = self.measure(measure, weight_bits or {}, activation_bits or {})
        steps = np.asarray(order, dtype=np.int64)

        def cost(removed: int) -> float:
            living = start.copy()
            living[steps[:removed]] = False
            return evaluate(settle(living) if settle else living)

        least = cost(len(steps))
        if least > target:
            raise BudgetError(
                f"the target {measure} cannot be reached by this network.", expected=f"{measure} >= {least:.6g} at these bits",
                got=f"{measure}={target:.6g}", hint="a lower bit_range, fewer exceptions, or a larger target",
            )
        low, high = 0, len(steps)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if cost(middle) <= target else (middle + 1, high)
        return low

    def evaluate(
        self, alive: BoolArray | None = None, weight_bits: Bits | None = None, activation_bits: Bits | None = None
    ) -> Costs:
        """Return all figures, in total and by layer, when the groups ``alive`` (bool, [G]; None: all) live at these bits (None: fp32)."""
        alive = np.ones(self.n_groups, dtype=bool) if alive is None else alive
        rows = self._operator_rows(alive, weight_bits or {}, activation_bits or {})
        sizes = self._sizes(alive, self._parameter_bits(weight_bits or {}), self._channel_bits(weight_bits or {}))
        self._add_parameters(rows, alive, weight_bits or {}, sizes)
        shares = {f"relative_{name}": _sum(rows, name) / (getattr(self.dense, name) or 1.0) for name in ("bops", "bops_full")}
        return Costs(**{name: _sum(rows, name) for name in FIGURES}, **shares, layers=tuple(rows.values()), dense=self.dense)

    def _operator_rows(self, alive: BoolArray, weight_bits: Bits, activation_bits: Bits) -> dict[str, LayerCost]:
        weights, inputs = self._operand_bits(weight_bits, activation_bits)
        rows = {}
        for op, macs, b_w, b_a in zip(self.operators, self._macs.counts(alive).tolist(), weights, inputs, strict=True):
            bops = macs * float(b_w) * float(b_a)
            rows[op.layer] = LayerCost(
                op.layer, op.module_path, op.operator, 0 if op.attention else macs, macs, 0.0 if op.attention else bops, bops,
                weight_bits=_found(activation_bits if op.attention else weight_bits, op.weight),
                input_bits=_found(activation_bits, op.activation),
                channels=None if op.channels is None else op.channels.count(alive),
            )
        return rows

    def _add_parameters(self, rows: dict[str, LayerCost], alive: BoolArray, weight_bits: Bits, sizes: FloatArray) -> None:
        """Book each parameter on the first operator that uses its quantizer or whose module owns it, else on a row of its own."""
        home: dict[str, str] = {}
        for op in self.operators:
            for key in () if op.attention else (op.weight or op.module_path, op.module_path):
                home.setdefault(key, op.layer)
        for p, numel, size in zip(self.parameters, self._numel.counts(alive).tolist(), sizes.tolist(), strict=True):
            module = p.name.rpartition(".")[0]
            key = home.get(p.layer or module) or p.layer or module or p.name
            row = rows.get(key) or LayerCost(key, module, "parameters", weight_bits=_found(weight_bits, p.layer))
            rows[key] = replace(row, parameters=row.parameters + numel, size_bytes=row.size_bytes + size)

    def _operand_bits(self, weight_bits: Bits, activation_bits: Bits) -> tuple[FloatArray, FloatArray]:
        """Bits of both operands of every operator, [operators] each."""
        first = [_bits(activation_bits if op.attention else weight_bits, op.weight, FP32_BITS) for op in self.operators]
        second = [_bits(activation_bits, op.activation, FP32_BITS) for op in self.operators]
        return np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)

    def _parameter_bits(self, weight_bits: Bits) -> FloatArray:
        return np.array([_bits(weight_bits, p.layer, p.bits) for p in self.parameters], dtype=np.float64)

    def _channel_bits(self, weight_bits: Bits) -> FloatArray:
        """Bits of the numbers of one channel of every parameter, [parameters]; 0 where no quantizer counts."""
        found = [CHANNEL_NUMBERS * p.number_bits if p.channels and _found(weight_bits, p.layer) else 0 for p in self.parameters]
        return np.array(found, dtype=np.float64)

    def _sizes(self, alive: BoolArray, element: FloatArray, channel: FloatArray) -> FloatArray:
        """Bytes of every parameter, [parameters], of so many bits an element and a channel."""
        sizes: FloatArray = (self._numel.counts(alive) * element + self._channels.counts(alive) * channel) / 8
        return sizes

    def _dense_fp32(self) -> Totals:
        everything = np.ones(self.n_groups, dtype=bool)
        rows = self._operator_rows(everything, {}, {})
        # Never narrower than fp32: a half-precision copy of the network is not the baseline.
        sizes = self._sizes(everything, np.maximum(self._parameter_bits({}), FP32_BITS), self._channel_bits({}))
        self._add_parameters(rows, everything, {}, sizes)
        totals = {name: _sum(rows, name) for name in FIGURES}
        return Totals(**totals, relative_bops=1.0, relative_bops_full=1.0, layers=tuple(rows.values()))


def _sum(rows: Mapping[str, LayerCost], name: str) -> Any:
    return sum(getattr(row, name) for row in rows.values())


def _found(bits: Bits, layer: str | None) -> float | None:
    """Bits of a layer's quantizer, None when there is none."""
    return None if layer is None or layer not in bits else float(bits[layer])


def _bits(bits: Bits, layer: str | None, default: float) -> float:
    found = _found(bits, layer)
    return default if found is None else found
