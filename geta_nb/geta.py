"""The façade: one object that traces, quantizes, groups, prices, prunes, cuts and reports. Each method is a call into a stage."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb import calibrate as calibration
from geta_nb import checkpoint, subnet
from geta_nb.analysis import Analysis, analyse
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import CalibrationError, ConfigError, InputError, PruningSpaceError, SubnetError
from geta_nb.graph_net import GraphNet
from geta_nb.groups import Family, Group, GroupList, ProtectedList
from geta_nb.optimizer import QASSO
from geta_nb.prepare import Quantizers, attach_quantizers, parameter_tensors
from geta_nb.preview import Preview
from geta_nb.preview import preview as preview_budget
from geta_nb.qadg import QADG
from geta_nb.removal import round_up
from geta_nb.report import Report, build_report
from geta_nb.rewrite import Cut, cut_graph
from geta_nb.schedule import Schedule
from geta_nb.trace import Trace, check_inputs
from geta_nb.views import Shown


class GETA(Shown):
    """Makes ``model`` quantization-aware in place and finds what can be removed from it.

    Args:
        model: any module that torch.export can trace; it stays the very object that was passed in.
        example_inputs: a tensor or a tuple of positional inputs, batch axis first.
        example_kwargs: keyword inputs passed along.
        quantize: what to quantize; None: pruning only. Quantizers of an earlier ``GETA`` are taken over: see ``quantizers.taken_over``.
        protect: patterns of parameter or module paths whose groups must stay.
        approximate_norms: not available yet; must be False.

    Attributes:
        model: the model.
        groups, families, protected: the pruning space.
        trace, qadg: raw and folded graph.
        quantizers: weight and input quantizers by layer; None for pruning only.
        cost: the cost model.

    Raises:
        InputError: the model rejects the example inputs.
        TraceError: torch.export cannot trace it.
        ConfigError: a pattern that matches nothing, or an option with no sense. After any error the model is as it was.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        example_kwargs: Mapping[str, Any] | None = None,
        quantize: QuantConfig | None = QuantConfig(),  # noqa: B008 - frozen
        protect: Sequence[str] = (),
        approximate_norms: bool = False,
    ) -> None:
        _check_arguments(model, quantize, approximate_norms)
        self.model = model
        self.example_inputs: tuple[Any, ...] = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
        self.example_kwargs = dict(example_kwargs or {})
        self.config = quantize
        self.protect = (protect,) if isinstance(protect, str) else tuple(protect)
        _check_patterns(model, self.protect)
        check_inputs(model, self.example_inputs, self.example_kwargs)
        self.quantizers: Quantizers | None = attach_quantizers(model, quantize) if quantize is not None else None
        try:
            self._restore_formats()
            self._analysis: Analysis = analyse(
                model, self.example_inputs, self.example_kwargs, self.quantizers, protect=self._is_protected, dense=self._dense_totals()
            )
        except BaseException:
            if self.quantizers is not None:
                self.quantizers.undo()
            raise
        self.groups = GroupList(self._analysis.table)
        self._cuts: weakref.WeakKeyDictionary[nn.Module, tuple[NDArray[np.bool_], int, float]] = weakref.WeakKeyDictionary()
        self._optimizer: weakref.ref[QASSO] | None = None
        self._pending: dict[str, Any] | None = None

    @property
    def trace(self) -> Trace:
        """Raw ATen trace of the quantized model."""
        return self._analysis.trace

    @property
    def qadg(self) -> QADG:
        """Folded graph with ``.vertices``, ``.edges`` and ``.branches``."""
        return self._analysis.qadg

    @property
    def families(self) -> tuple[Family, ...]:
        """Groups of one pattern together."""
        return self.groups.families

    @property
    def protected(self) -> ProtectedList:
        """What may not be pruned, and why."""
        return self._analysis.protected

    @property
    def cost(self) -> Any:
        """The cost model: MACs, BOPs in both countings, bytes."""
        return self._analysis.cost

    def calibrate(self, batches: Iterable[Any]) -> tuple[str, ...]:
        """Set the ranges of all activation quantizers from data; returns layers that no batch reached.

        Args:
            batches: each in the form of ``example_inputs``; ``example_kwargs`` are passed along.
        """
        if self.quantizers is None or not self.quantizers.activations:
            return ()
        return calibration.calibrate(self.model, self.quantizers, batches, self.example_kwargs)

    def qasso(
        self,
        optimizer: type[torch.optim.Optimizer] | torch.optim.Optimizer,
        *,
        budget: Budget,
        schedule: Schedule,
        lr_quant: float = 1e-4,
        rules: Any = "default",
        saliency: str | None = None,
        forgetting: str | None = None,
        **inner: Any,
    ) -> QASSO:
        """Return the optimizer that trains, quantizes and prunes jointly.

        Args:
            optimizer: a torch optimizer class, built here with ``**inner`` over the model's parameters, or a built one.
            budget: what must hold at the end.
            schedule: when its four stages run.
            lr_quant: learning rate of the quantizers' step sizes, clip values and exponents.
            rules: "default", "paper", or a ``Rules`` object; ``saliency`` and ``forgetting`` replace one of them by name.

        Raises:
            PruningSpaceError: the budget asks for sparsity and nothing may be removed.
            BudgetError: the budget cannot be met.
            CalibrationError: an input quantizer has no range yet.
        """
        if isinstance(budget, Budget):
            self._check_space(budget)
        self._check_calibrated()
        built = self._build_inner(optimizer, inner)
        qasso = QASSO(
            built,
            table=self._analysis.table,
            parameters=self._parameters(),
            quantizers=self.quantizers,
            cost=self._analysis.cost,
            budget=budget,
            schedule=schedule,
            lr_quant=lr_quant,
            rules=rules,
            saliency=saliency,
            forgetting=forgetting,
        )
        if self._pending is not None:
            qasso.load_state_dict(self._pending)
            self._pending = None
        self._optimizer = weakref.ref(qasso)
        return qasso

    def preview(self, budget: Budget, *, groups: Iterable[int | Group] | None = None) -> Preview:
        """Return what the network costs once the budget is met; exact for given ``groups``, else it says what it assumes."""
        self._check_space(budget)
        return preview_budget(self._analysis.cost, self._analysis.table, budget, groups=groups)

    @torch.no_grad()
    def mask(self, groups: Iterable[int | Group]) -> None:
        """Zero the producing slices of these groups in place: weights, biases, norm parameters."""
        chosen = np.zeros(len(self.groups), dtype=bool)
        for group in groups:
            index = group.index if isinstance(group, Group) else int(group)
            if not -len(chosen) <= index < len(chosen):
                raise ConfigError("mask: no such group.", expected=f"0 <= index < {len(chosen)}", got=index)
            chosen[index] = True
        parameters = self._parameters()
        for entry in self._analysis.table.axis_maps:
            rows = np.flatnonzero(np.append(chosen, False)[entry.group_of_index]) if entry.producing else ()
            if len(rows):
                tensor = parameters[entry.parameter]
                tensor.index_fill_(entry.axis, torch.from_numpy(np.asarray(rows)).to(tensor.device), 0)

    def bit_widths(self) -> dict[str, int | float]:
        """Bits of each layer's weights; whole numbers once they are fixed."""
        return _bits(self.quantizers.weights if self.quantizers else {})

    def activation_bit_widths(self) -> dict[str, int | float]:
        """Bits of each layer's quantized input."""
        return _bits(self.quantizers.activations if self.quantizers else {})

    def group_sparsity(self) -> float:
        """Zero groups over prunable groups, 0 when there are none."""
        return float((~self._alive()).mean()) if len(self.groups) else 0.0

    def construct_subnet(self, *, round_to: int = 1) -> nn.Module:
        """Return a smaller module that computes what the model computes now; every group that is exactly zero is cut.

        Args:
            round_to: keep so many zero groups that each family counts a multiple of this.

        Returns:
            The model's own classes where these, cut, compute the same; else a graph module. ``model`` itself is not changed.
        """
        zero = ~self._alive()
        table = self._analysis.table
        alive = round_up(table, _keep_one(table.family_of, ~zero), round_to=round_to)
        cut = Cut(self._analysis.state, table, alive)
        quantizers = {layer: subnet.frozen_quantizer(q) for layer, q in (self.quantizers.activations if self.quantizers else {}).items()}
        graph = cut_graph(cut, self.qadg, self._analysis.names, self._tensors(), quantizers)
        reference = subnet.outputs_of(self.model, self.example_inputs, self.example_kwargs)
        found = subnet.outputs_of(graph, self.example_inputs, self.example_kwargs)
        difference = subnet.max_difference(found, reference)
        if not subnet.agrees(graph, reference, self.example_inputs, self.example_kwargs):
            raise SubnetError(
                "construct_subnet: the cut graph does not compute what the masked model computes.",
                expected="equal outputs on the example inputs", got=f"a difference of {difference:.3g}",
                hint="please report the model; nothing was changed",
            )
        result = self._best_module(cut, graph, found)
        self._cuts[result] = (alive, int(zero.sum()), subnet.max_difference(subnet.outputs_of(result, self.example_inputs, self.example_kwargs), reference))
        return result

    def report(self, network: nn.Module, *, metrics: Mapping[str, Any] | None = None) -> Report:
        """Return measured facts of a subnet of this object; shows itself.

        Args:
            network: what ``construct_subnet`` returned.
            metrics: name -> number, your own measurements.
        """
        if network not in self._cuts:
            raise InputError("report: not a subnet of this GETA.", expected="what construct_subnet() returned", got=type(network).__name__)
        alive, zero, difference = self._cuts[network]
        info: subnet.SubnetInfo = network.geta_info  # type: ignore[assignment]
        optimizer = self._optimizer() if self._optimizer is not None else None
        target = optimizer.n_redundant if optimizer is not None else None
        return build_report(
            self._analysis.cost,
            alive,
            weight_bits=self.bit_widths(),
            activation_bits=self.activation_bit_widths(),
            max_abs_difference=difference,
            module_kind=info.kind,
            zero_groups=zero,
            target_group_sparsity=target / len(self.groups) if target is not None and len(self.groups) else None,
            metrics=metrics,
        )

    def save_checkpoint(self, path: str | PathLike[str]) -> None:
        """Write model, quantizers and the optimizer of the last :meth:`qasso` to one file, atomically."""
        optimizer = self._optimizer() if self._optimizer is not None else None
        state = {
            "model": self.model.state_dict(),
            "optimizer": optimizer.state_dict() if optimizer is not None else None,
            "quantize": self.config.to_dict() if self.config is not None else None,
            "protect": list(self.protect),
            "groups": len(self.groups),
        }
        checkpoint.write(path, state)

    @classmethod
    def resume(
        cls, path: str | PathLike[str], model: nn.Module, example_inputs: Any, *, example_kwargs: Mapping[str, Any] | None = None
    ) -> GETA:
        """Return a ``GETA`` in the state of a checkpoint; the next :meth:`qasso` call restores the optimizer too.

        Raises:
            CheckpointError: the file is not a checkpoint, or is one of another model.
        """
        state = checkpoint.read(path)
        config = QuantConfig.from_dict(state["quantize"]) if state["quantize"] is not None else None
        geta = cls(model, example_inputs, example_kwargs=example_kwargs, quantize=config, protect=tuple(state["protect"]))
        checkpoint.restore(model, state, len(geta.groups), path)
        geta._pending = state["optimizer"]
        return geta

    def _restore_formats(self) -> None:
        """A subnet that is compressed again starts from the codes it has, not from fresh 16-bit ranges."""
        info = getattr(self.model, "geta_info", None)
        if self.quantizers is None or not isinstance(info, subnet.SubnetInfo):
            return
        for name, weight in info.formats.items():
            layer = self.quantizers.parameter_layer.get(name)
            if layer is not None and layer not in self.quantizers.taken_over:
                subnet.set_format(self.quantizers.weights[layer], weight)

    def _dense_totals(self) -> Any:
        info = getattr(self.model, "geta_info", None)
        return info.dense if isinstance(info, subnet.SubnetInfo) else None

    def _is_protected(self, name: str) -> bool:
        return any(fnmatchcase(path, pattern) for path in _paths(name) for pattern in self.protect)

    def _parameters(self) -> dict[str, nn.Parameter]:
        return parameter_tensors(self.model)

    def _build_inner(self, optimizer: Any, inner: dict[str, Any]) -> torch.optim.Optimizer:
        if isinstance(optimizer, torch.optim.Optimizer):
            if inner:
                raise ConfigError("qasso: a built optimizer takes no further arguments.", expected="none", got=", ".join(inner))
            return optimizer
        if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
            raise ConfigError("qasso: not an optimizer.", expected="a torch.optim.Optimizer class or object", got=repr(optimizer), hint="torch.optim.AdamW")
        unique = {id(parameter): parameter for parameter in self._parameters().values()}
        return optimizer(list(unique.values()), **inner)

    def _check_space(self, budget: Budget) -> None:
        wanted = bool(budget.group_sparsity) or budget.target is not None and budget.target[0] != "group_sparsity"
        if len(self.groups) or not wanted or not budget.group_sparsity:
            return
        first = self.protected[0] if self.protected else None
        raise PruningSpaceError(
            "GETA: nothing in this network may be removed.",
            at=first.path if first else type(self.model).__name__,
            expected="at least one prunable group",
            got=f"{len(self.protected)} protected axes" + (f"; the first: {first.reason} ({first.operator})" if first else ""),
            hint="look at geta.protected, or Budget(group_sparsity=0) to quantize only",
        )

    def _check_calibrated(self) -> None:
        missing = [layer for layer, q in (self.quantizers.activations if self.quantizers else {}).items() if not q.calibrated]
        if missing:
            raise CalibrationError(
                "qasso: input quantizers have no range yet.", at=", ".join(missing[:5]), expected="a calibrated model",
                got=f"{len(missing)} without a range", hint="geta.calibrate(batches)",
            )

    def _alive(self) -> NDArray[np.bool_]:
        """Which groups are not exactly zero, [G]."""
        alive = np.zeros(len(self.groups), dtype=bool)
        parameters = self._parameters()
        for entry in self._analysis.table.axis_maps:
            if entry.producing:
                tensor = parameters[entry.parameter].detach()
                others = [axis for axis in range(tensor.dim()) if axis != entry.axis]
                filled = (tensor != 0).any(dim=others) if len(others) > 1 else (tensor != 0).any(others[0]) if others else tensor != 0
                owners = entry.group_of_index[filled.cpu().numpy()]
                alive[owners[owners >= 0]] = True
        return alive

    def _tensors(self) -> dict[str, Tensor]:
        """Own name -> value as the network uses it: x^Q for quantized parameters; tied names share one object."""
        made: dict[int, nn.Parameter] = {}
        result: dict[str, Tensor] = {}
        for name, parameter in self._parameters().items():
            if id(parameter) not in made:
                layer = self.quantizers.parameter_layer.get(name) if self.quantizers is not None else None
                with torch.no_grad():
                    value = self.quantizers.weights[layer](parameter) if layer is not None and self.quantizers else parameter
                made[id(parameter)] = nn.Parameter(value.detach().clone(), parameter.requires_grad)
            result[name] = made[id(parameter)]
        result.update(dict(self.model.named_buffers(remove_duplicate=False)))
        return result

    def _best_module(self, cut: Cut, graph: GraphNet, reference: list[Tensor]) -> nn.Module:
        def same(candidate: nn.Module) -> bool:
            return subnet.agrees(candidate, reference, self.example_inputs, self.example_kwargs)

        native = None if isinstance(self.model, GraphNet) else subnet.native_subnet(self.model, graph, cut.sizes, same)
        result: nn.Module = graph if native is None else native
        quantizers = self.quantizers
        names = {name: quantizers.weights[layer] for name, layer in quantizers.parameter_layer.items()} if quantizers else {}
        result.geta_info = subnet.SubnetInfo(  # type: ignore[assignment]
            kind="graph" if native is None else "native",
            formats={name: subnet.weight_format(quantizer) for name, quantizer in names.items()},
            activation_formats={layer: subnet.weight_format(q) for layer, q in (quantizers.activations if quantizers else {}).items()},
            graph=None if native is None else graph,
            dense=self._analysis.cost.dense,
        )
        return result


def _keep_one(family_of: NDArray[np.int64], alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the first group of a family that is zero as a whole: a layer needs one channel."""
    alive = alive.copy()
    counts = np.bincount(family_of, weights=alive, minlength=int(family_of.max(initial=-1)) + 1)
    firsts = np.unique(family_of, return_index=True)[1]
    alive[firsts[counts[family_of[firsts]] == 0]] = True
    return alive


def _bits(quantizers: Mapping[str, Any]) -> dict[str, int | float]:
    """Bits by layer; within rounding error of a whole number they are that number."""
    found: dict[str, int | float] = {}
    for layer, quantizer in quantizers.items():
        bits = float(quantizer.bit_width())
        found[layer] = round(bits) if abs(bits - round(bits)) < 1e-3 else bits
    return found


def _paths(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _check_arguments(model: object, quantize: object, approximate_norms: bool) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigError("GETA: not a model.", expected="a torch.nn.Module", got=type(model).__name__)
    if quantize is not None and not isinstance(quantize, QuantConfig):
        raise ConfigError("GETA: quantize.", expected="a gt.QuantConfig, or None for pruning only", got=repr(quantize), hint="gt.QuantConfig()")
    if approximate_norms:
        raise ConfigError("GETA: approximate_norms is not available yet.", expected="approximate_norms=False", got="True")


def _check_patterns(model: nn.Module, patterns: Sequence[str]) -> None:
    paths = {path for name in parameter_tensors(model) for path in _paths(name)}
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise ConfigError("GETA: a protect pattern matches nothing.", at=pattern, expected="a parameter or module path", got="no match",
                              hint=f"protect=[{sorted(paths)[0]!r}]" if paths else None)


def example_leaves(args: Any) -> list[Tensor]:
    """Return the tensors among example inputs."""
    return [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
