"""Report: the measured facts of a finished compression, as one JSON-able object. Last step of a run.

In: costs of the masked network, bits, the difference between masked model and subnet, and metrics that the user measured.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from geta_nb.cost.model import Bits, CostModel
from geta_nb.cost.totals import Costs, LayerReport, compare_layers
from geta_nb.errors import ConfigError
from geta_nb.groups import BoolArray
from geta_nb.views import Shown

MODULE_KINDS = ("native", "graph")


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """What came out.

    Attributes:
        costs: figures of the subnet and of the dense fp32 model, in total and by layer.
        group_sparsity: zero groups / prunable groups.
        target_group_sparsity: what the budget asked for; None: a cost target, or no budget.
        bit_widths: layer -> bits of its weights.
        activation_bit_widths: layer -> bits of its inputs.
        max_abs_difference: largest difference between the outputs of masked model and subnet; None: an output is not finite.
        module_kind: ``"native"`` (the model's own classes) or ``"graph"``.
        approximate_groups: removed groups that a norm runs over (``approximate_norms``); 0: the subnet equals the masked model.
        rounding: where zero groups were kept so that channels are a multiple of a number: ``round_to``, ``groups`` kept, and what they
            cost: ``parameters``, ``size_bytes``, ``macs``, ``relative_bops``; None where nothing was rounded.
        dynamic_axes: of a graph, input -> its axes that need not be of the example's size; None: the model's own classes, which take what
            they take.
        predicted_rise: of the loss, by rounding and by all groups that went, before training repaired it; None: nothing was planned.
        allocation: layer -> ``bits`` and ``why``, ``input_bits`` and ``input_why`` where its input is quantized; empty without a run.
        metrics: what the user measured, plain values; one that is not finite is None, with ``<name>_reason`` beside it.
        versions: package -> version.
    """

    costs: Costs
    group_sparsity: float
    target_group_sparsity: float | None
    bit_widths: dict[str, float]
    activation_bit_widths: dict[str, float]
    max_abs_difference: float | None
    module_kind: str
    approximate_groups: int
    metrics: dict[str, Any]
    versions: dict[str, str]
    rounding: dict[str, Any] | None = None
    dynamic_axes: dict[str, list[int]] | None = None
    predicted_rise: float | None = None
    allocation: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """One row per layer, before and after."""
        return compare_layers(self.costs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values. Sizes in bytes; MACs in the paper's counting, ``_full`` with products of two activations.

        ``"approximate_groups"`` is there only where norms run over groups that are gone, ``"rounding"`` where ``round_to`` kept groups.
        """
        dense = self.costs.dense
        sides = {
            name: {"dense": _plain(getattr(dense, name)), "subnet": _plain(getattr(self.costs, name))}
            for name in ("parameters", "macs", "size_bytes")
        }
        sides["macs"] |= {"dense_full": dense.macs_full, "subnet_full": self.costs.macs_full}
        return {
            "group_sparsity": self.group_sparsity,
            "target_group_sparsity": self.target_group_sparsity,
            "bit_widths": dict(self.bit_widths),
            "activation_bit_widths": dict(self.activation_bit_widths),
            **sides,
            "relative_bops": self.costs.relative_bops,
            "relative_bops_full": self.costs.relative_bops_full,
            "max_abs_difference": self.max_abs_difference,
            "module_kind": self.module_kind,
            "dynamic_axes": self.dynamic_axes,
            "predicted_rise": self.predicted_rise,
            "allocation": {layer: dict(found) for layer, found in self.allocation.items()},
            **({"approximate_groups": self.approximate_groups} if self.approximate_groups else {}),
            **({"rounding": dict(self.rounding)} if self.rounding else {}),
            "layers": [{key: _plain(value) for key, value in asdict(row).items()} for row in self.layers],
            "metrics": dict(self.metrics),
            "versions": dict(self.versions),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_dict` as JSON and return the path. The file is whole or untouched, whatever happens meanwhile."""
        target = Path(path)
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target


def build_report(
    cost: CostModel,
    alive: BoolArray,
    *,
    weight_bits: Bits,
    activation_bits: Bits,
    max_abs_difference: float | None,
    module_kind: str,
    zero_groups: int | None = None,
    target_group_sparsity: float | None = None,
    approximate_groups: int = 0,
    metrics: Mapping[str, Any] | None = None,
    rounding: tuple[int, Sequence[int]] = (1, ()),
    dynamic_axes: Mapping[str, Sequence[int]] | None = None,
    predicted_rise: float | None = None,
    allocation: Mapping[str, Mapping[str, Any]] | None = None,
) -> Report:
    """Return the report of a subnet.

    Args:
        cost: cost model of the network that was cut.
        alive: groups that the subnet kept, bool [G].
        weight_bits: layer -> bits of its weights.
        activation_bits: layer -> bits of its inputs.
        max_abs_difference: largest absolute difference of masked model and subnet on the example inputs.
        module_kind: ``"native"`` or ``"graph"``.
        zero_groups: zero groups, where rounding kept some of them; None: those that do not live.
        target_group_sparsity: what the budget asked for.
        approximate_groups: removed groups that did not go exactly.
        metrics: name -> number, text, or a mapping or list of such.
        rounding: (round_to, zero groups that live for it).
        dynamic_axes: of a graph, input -> its axes that need not be of the example's size.
        predicted_rise: of the loss, before training repaired it.
        allocation: layer -> bits and why.

    Raises:
        ConfigError: an unknown kind of module, or a metric that JSON cannot hold.
    """
    if module_kind not in MODULE_KINDS:
        raise ConfigError("build_report: no such kind of module.", expected=" or ".join(MODULE_KINDS), got=repr(module_kind))
    zero = cost.n_groups - int(alive.sum()) if zero_groups is None else zero_groups
    return Report(
        costs=cost.evaluate(alive, weight_bits, activation_bits),
        group_sparsity=zero / cost.n_groups if cost.n_groups else 0.0,
        target_group_sparsity=target_group_sparsity,
        bit_widths={layer: _plain(float(bits)) for layer, bits in weight_bits.items()},
        activation_bit_widths={layer: _plain(float(bits)) for layer, bits in activation_bits.items()},
        max_abs_difference=_finite(max_abs_difference),
        module_kind=module_kind,
        approximate_groups=approximate_groups,
        metrics=_plain_metrics({} if metrics is None else metrics, at="metrics"),
        versions=find_versions(),
        rounding=_rounding(cost, alive, weight_bits, activation_bits, *rounding),
        dynamic_axes=None if dynamic_axes is None else {name: list(axes) for name, axes in dynamic_axes.items()},
        predicted_rise=_finite(predicted_rise),
        allocation={layer: dict(found) for layer, found in (allocation or {}).items()},
    )


def _rounding(
    cost: CostModel, alive: BoolArray, weight_bits: Bits, activation_bits: Bits, round_to: int, rounded: Sequence[int]
) -> dict[str, Any] | None:
    """Return what the groups that live only for ``round_to`` cost: the network as it is, less the network without them."""
    if not rounded:
        return None
    bare = alive.copy()
    bare[list(rounded)] = False
    after, before = cost.evaluate(alive, weight_bits, activation_bits), cost.evaluate(bare, weight_bits, activation_bits)
    extra = {key: _plain(getattr(after, key) - getattr(before, key)) for key in ("parameters", "size_bytes", "macs", "relative_bops")}
    return {"round_to": round_to, "groups": len(rounded), **extra}


def find_versions() -> dict[str, str]:
    """Return the versions of python, this package and what its numbers depend on; ``"not installed"`` for a bare source tree."""
    found = {"python": platform.python_version()}
    for package in ("geta-nb", "torch", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _plain(value: Any) -> Any:
    """Return whole floats as ints, everything else as it is: 8 bits, not 8.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _plain_metrics(metrics: Mapping[str, Any], *, at: str) -> dict[str, Any]:
    """Return metrics as JSON-able values; NaN and infinity, which JSON cannot hold, become null with a reason beside them."""
    if not isinstance(metrics, Mapping):
        raise ConfigError("report: metrics.", at=at, expected="a mapping: name -> number", got=repr(metrics), hint='{"accuracy": 0.9}')
    plain: dict[str, Any] = {}
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ConfigError("report: the name of a metric is text.", at=at, got=repr(name))
        plain[name] = _plain_metric(value, f"{at}[{name!r}]")
        if isinstance(plain[name], float) and not math.isfinite(plain[name]):
            plain[name + "_reason"] = f"was {plain[name]}, which JSON cannot hold"
            plain[name] = None
    return plain


def _plain_metric(value: Any, at: str) -> Any:
    if isinstance(value, Mapping):
        return _plain_metrics(value, at=at)
    if isinstance(value, list | tuple):
        # In a list there is no place for a reason: the value is null.
        items = [_plain_metric(item, at) for item in value]
        return [None if isinstance(item, float) and not math.isfinite(item) else item for item in items]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a numpy scalar, a 0-dim tensor
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        "report: a metric is not JSON-able.", at=at, expected="a number, text, None, or a mapping or list of such",
        got=type(value).__name__, hint="float(value)",
    )
