"""The façade: one object that traces, groups, quantizes, prices, prunes, cuts and reports. Each method is a call into a room.

In: a model, example inputs and what the user says. Out: a :class:`GETA`, which displays and widgets show. Stage 13, above the core's rooms.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import nn

from geta_nb import checks
from geta_nb.adapting import Adaptable
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.cost import CostModel, Preview, Report, build_report
from geta_nb.cost import preview as preview_budget
from geta_nb.errors import InputError
from geta_nb.files import random_state
from geta_nb.graph import Trace, example_arguments, own_forwards
from geta_nb.groups import Family, Group, GroupList, ProtectedList, masking, round_up
from geta_nb.qadg import QADG, trace_quantized
from geta_nb.qasso import QASSO, Rules, Schedule, ranks, reasons, warn_of_strays
from geta_nb.quantizers import (
    Quantizer,
    Quantizers,
    calibrate,
    check_adapters,
    check_merged,
    parameter_tensors,
    start_ranges,
    tensors_of_groups,
    without_adapters,
)
from geta_nb.resuming import Resumable
from geta_nb.sensitivity import BITS, KEPT, Asked, Losses, Sensitivity, find_sensitivity
from geta_nb.sharding import is_managed, reshard
from geta_nb.subnet import (
    Elsewhere,
    SubnetInfo,
    build_subnet,
    fingerprint,
    gathered,
    nearly_whole,
    real_inputs,
    suited,
)
from geta_nb.views import Shown


class GETA(Adaptable, Resumable, Shown):
    """Makes ``model`` quantization-aware in place and finds what can be removed from it.

    Args:
        model: any module that torch.export can trace; it stays the very object that was passed in.
        example_inputs: a tensor or a tuple of positional inputs, batch axis first; ``()`` where all are keywords.
        example_kwargs: keyword inputs passed along.
        quantize: what to quantize; None: pruning only. Quantizers of an earlier ``GETA`` are taken over: see ``quantizers.taken_over``.
        protect: patterns of parameter or module paths whose groups must stay.
        approximate_norms: also remove channels that layer norms run over (a transformer's residual width). Such groups are marked
            ``exact=False``: a norm over fewer channels has other statistics, so the subnet is near the masked model, not equal to it.
        dynamic: let subnets, files and ONNX files of this network take every size of its inputs that the network takes; another size of
            an axis that it binds is an ``InputError``. False: the batch axis alone, which spares a second trace.

    Attributes:
        model: the model.
        groups, families, protected: the pruning space.
        trace, qadg: raw and folded graph.
        quantizers: weight and input quantizers by layer; None when there are none.
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
        dynamic: bool = True,
    ) -> None:
        checks.check_arguments(model, quantize, approximate_norms=approximate_norms, dynamic=dynamic)
        checks.check_names(model)
        check_adapters(model)
        ranks.check_unwrapped(model)
        self.model, self.config, self.approximate_norms, self.dynamic = model, quantize, approximate_norms, dynamic
        self.example_inputs, self.example_kwargs = example_arguments(example_inputs, example_kwargs)
        self.protect = checks.check_protect(model, protect)
        quantizers = self._analyse()
        self.quantizers: Quantizers | None = quantizers if quantizers.weights or quantizers.activations or quantize is not None else None
        self.groups = GroupList(self._analysis.table)
        self._optimizer: QASSO | None = None
        self._pending: dict[str, Any] | None = None
        self._saved: dict[str, Any] = {}
        self._adopt(late=False)

    @property
    def trace(self) -> Trace:
        """ATen trace of the model, made without quantizers, with the branches of those that stand on it now."""
        return self._analysis.trace

    @property
    def qadg(self) -> QADG:
        """Folded graph with ``.vertices``, ``.edges`` and ``.branches``."""
        return self._analysis.qadg

    def trace_quantized(self) -> QADG:
        """Return the model as torch's exporter sees it now, quantizers and all, and folded; one run of the exporter.

        Nothing here needs it: :attr:`trace` was made without quantizers and has the branches of those that stand on it. This is the other
        way to the same graph, for whoever wants to see it.
        """
        with without_adapters(self.model):
            return trace_quantized(self.model, self.example_inputs, self.example_kwargs, self._analysis.quantizers)

    @property
    def families(self) -> tuple[Family, ...]:
        """Groups of one pattern together."""
        return self.groups.families

    @property
    def protected(self) -> ProtectedList:
        """What may not be pruned, and why."""
        return self._analysis.protected

    @property
    def cost(self) -> CostModel:
        """The cost model: MACs, BOPs in both countings, bytes."""
        return self._analysis.cost

    def __deepcopy__(self, memo: dict[int, Any]) -> GETA:
        """Copy the model, its quantizers and the optimizer of the last :meth:`qasso`; the graphs are traced anew, from the copy."""
        model, inputs, keywords = copy.deepcopy((self.model, self.example_inputs, self.example_kwargs), memo)
        twin = self._twin(model, *suited(model, inputs, keywords))  # the model may have moved since
        memo[id(self)] = twin
        twin._optimizer, twin._pending, twin._saved = copy.deepcopy((self._optimizer, self._pending, self._saved), memo)
        return twin

    def _twin(self, model: nn.Module, inputs: Any, keywords: Mapping[str, Any]) -> GETA:
        """Return the same of a copy of the model, traced anew."""
        return type(self)(
            model, inputs, example_kwargs=keywords, quantize=self.config, protect=self.protect, approximate_norms=self.approximate_norms,
            dynamic=self.dynamic,
        )

    def calibrate(self, batches: Iterable[Any]) -> tuple[str, ...]:
        """Set the ranges of all activation quantizers from data; returns layers that no batch reached.

        Args:
            batches: each in the form of ``example_inputs``; ``example_kwargs`` are passed along.
        """
        if self.quantizers is None or not self.quantizers.activations:
            return ()
        self._ready()
        left_out = calibrate(self.model, self.quantizers, batches, self.example_kwargs)
        self._analysis.match_codes()
        return left_out

    def qasso(
        self,
        optimizer: type[torch.optim.Optimizer] | torch.optim.Optimizer,
        *,
        budget: Budget,
        schedule: Schedule,
        lr_quant: float = 1e-3,
        rules: Rules | str = "default",
        saliency: str | None = None,
        forgetting: str | None = None,
        total_steps: int | None = None,
        **inner: Any,
    ) -> QASSO:
        """Return the optimizer that trains, quantizes and prunes jointly.

        Args:
            optimizer: a torch optimizer class, built here with ``**inner`` over the model's parameters, or a built one.
            budget: what must hold at the end.
            schedule: when its four stages run.
            lr_quant: learning rate of the quantizers' step sizes, clip values and exponents.
            rules: "default", "paper", or a ``Rules`` object; ``saliency`` and ``forgetting`` replace one of them by name.
            total_steps: length of the run, to check that the schedule fits into it; None: not checked.

        Raises:
            PruningSpaceError: the budget asks for sparsity and nothing may be removed.
            BudgetError: the budget cannot be met.
            ScheduleError: the schedule is longer than the run.
            CalibrationError: an input quantizer has no range yet.
            CheckpointError: after :meth:`resume`, a budget or schedule that is not the saved one.
        """
        checks.check_space(budget, len(self.groups), self.protected, self.model)
        checks.check_run(schedule, total_steps)
        checks.check_calibrated(self.quantizers.activations if self.quantizers else {})
        added = self._trained_adapters(Rules.of(rules, saliency, forgetting))
        parameters = self._ready()
        ranks.check_shared(self.model, parameters, fingerprint(self._analysis.table), self.quantizers.paths if self.quantizers else ())
        unique = list({id(parameter): parameter for parameter in parameters.values()}.values())
        qasso = QASSO(
            checks.build_optimizer(optimizer, [*unique, *added], inner),
            table=self._analysis.table,
            parameters=parameters,
            quantizers=self.quantizers,
            cost=self.cost,
            budget=budget,
            schedule=schedule,
            lr_quant=lr_quant,
            rules=rules,
            saliency=saliency,
            forgetting=forgetting,
        )
        qasso.attach(self.model)
        if self._pending is not None:
            qasso.load_state_dict(self._pending)
            self._saved["groups"] = self._pending["param_groups"]
            self._pending = None
            random_state.restore(self._saved["random"])
        self._optimizer = qasso
        return qasso

    def sensitivity(
        self,
        batches: Iterable[Any],
        loss: Callable[[nn.Module, Any], torch.Tensor],
        *,
        kept: Sequence[float] = KEPT,
        bits: Sequence[int] = BITS,
        estimate: str = "auto",
        seed: int = 0,
        path: str | PathLike[str] | None = None,
    ) -> Sensitivity:
        """Return how much the loss rises with each layer at fewer bits and each family with fewer groups, all else as it is now.

        In eval mode; nothing is trained, and the model is as it was afterwards. Groups go whole, the least salient first (<x, g>^2).

        Args:
            batches: gone through once and kept in memory; a few hundred samples do.
            loss: (model, batch) -> scalar tensor, a mean over the batch.
            kept: shares of a family's groups.
            bits: bit widths of weights and of quantized inputs.
            estimate: "measured": each change is tried; "gradient": from gradients, to second order, a sample of them measured beside it;
                "auto": measured where that takes minutes.
            seed: of random numbers in the loss, and of the sample.
            path: a JSON file in which rises are kept as they come: a run that was stopped goes on from it.

        Raises:
            InputError: no batches, a loss that fails or is not finite, or a file of another network.
            ConfigError: bits, shares or an estimate that are none.
        """
        asked = Asked(tuple(bits), tuple(kept), estimate, seed).check()
        check_merged(self.model, "sensitivity")
        self._adopt()
        checks.check_calibrated(self.quantizers.activations if self.quantizers else {})
        losses = Losses(self.model, loss, batches, seed)
        parameters = self._ready()
        return find_sensitivity(self._analysis.table, parameters, self.quantizers, self.cost, losses, asked, path=path)

    def preview(
        self, budget: Budget, *, groups: Iterable[int | Group] | None = None, sensitivity: Sensitivity | None = None
    ) -> Preview:
        """Return what the network costs once the budget is met; exact for given ``groups``, else it says what it assumes.

        Args:
            budget: what is asked for.
            groups: exactly these go.
            sensitivity: of this network; groups go where the loss rises least, and the predicted rise of the loss, before training on,
                is added, with what carries it.
        """
        checks.check_space(budget, len(self.groups), self.protected, self.model)
        table = self._analysis.table
        if sensitivity is None:
            return preview_budget(self.cost, table, budget, groups=groups)
        known = sensitivity.of(self.cost, table)
        return preview_budget(self.cost, table, budget, groups=groups, price=known.predict, order=known.removal_order(budget))

    def _ready(self) -> dict[str, nn.Parameter]:
        """Return the parameters, which are shards where the model is sharded, with quantizers that have ranges."""
        reshard(self.model)
        parameters = parameter_tensors(self.model)
        if self.quantizers is not None:
            start_ranges(self.quantizers, parameters)
        return parameters

    def mask(self, groups: Iterable[int | Group]) -> None:
        """Zero the producing slices of these groups in place: weights, biases, norm parameters, shifts of frozen norms."""
        reshard(self.model)
        masking.mask_groups(self._analysis.table, tensors_of_groups(self.model), masking.group_flags(groups, len(self.groups)))
        self._adopt()

    def bit_widths(self) -> dict[str, int | float]:
        """Bits of each layer's weights; whole numbers once they are fixed."""
        return _bits(self.quantizers.weights if self.quantizers else {})

    def activation_bit_widths(self) -> dict[str, int | float]:
        """Bits of each layer's quantized input."""
        return _bits(self.quantizers.activations if self.quantizers else {})

    def group_sparsity(self) -> float:
        """Zero groups over prunable groups, 0 when there are none; of a sharded model all ranks must ask."""
        reshard(self.model)
        alive = masking.alive_groups(self._analysis.table, tensors_of_groups(self.model))
        return float((~alive).mean()) if len(alive) else 0.0

    def construct_subnet(self, *, round_to: int = 1) -> nn.Module:
        """Return a smaller module that computes what the model computes now; every group that is exactly zero is cut.

        Works at any time. Of a family that is zero as a whole one group stays: a layer needs a channel. Of a sharded model all ranks call
        it: rank 0 gathers tensor by tensor, has the subnet, and may save it; what the others get says so when it is used.

        Args:
            round_to: keep so many zero groups that the channels of each family are a multiple of this, which integer kernels like;
                the report says how many, and what they cost.

        Returns:
            The model's own classes where these, cut, compute the same; else a graph module. ``model`` itself is not changed.

        Raises:
            CalibrationError: an input quantizer has no range yet.
            ConfigError: the model has adapters that are not merged.
            NonFiniteError: a weight is NaN or infinite.
        """
        checks.check_round_to(round_to)
        check_merged(self.model, "construct_subnet")
        self._ready()
        self._analysis.match_codes()
        table = self._analysis.table
        nonzero = masking.alive_groups(table, tensors_of_groups(self.model))
        if self._optimizer is not None:
            warn_of_strays(self._optimizer.group_mask, nonzero, self._optimizer.bank)
        checks.check_calibrated(self.quantizers.activations if self.quantizers else {})
        if is_managed(self.model):
            return self._gathered_subnet(round_to)
        needed = masking.keep_one(table, nonzero)
        alive = round_up(table, needed, round_to=round_to)
        rounded = tuple(int(index) for index in np.flatnonzero(alive & ~needed))
        with own_forwards(self.model):
            return build_subnet(
                self.model, self._analysis, self.quantizers, alive, self.example_inputs, self.example_kwargs,
                zero_groups=int((~nonzero).sum()), rounded=rounded, round_to=round_to, dynamic=self.dynamic,
            )

    def _gathered_subnet(self, round_to: int) -> nn.Module:
        model = gathered(self.model)
        if model is None:
            return Elsewhere()
        inputs, keywords = real_inputs((self.example_inputs, self.example_kwargs))
        return self._twin(model, inputs, keywords).construct_subnet(round_to=round_to)

    def report(self, subnet: nn.Module, *, metrics: Mapping[str, Any] | None = None) -> Report:
        """Return measured facts of a subnet of this object, as they were when it was cut; shows itself.

        Args:
            subnet: what ``construct_subnet`` returned, or a copy of it.
            metrics: name -> number, your own measurements.

        Raises:
            InputError: not a subnet of this network.
        """
        info = getattr(subnet, "geta_info", None)
        facts = info.facts if isinstance(info, SubnetInfo) else None
        if facts is None or facts.space != fingerprint(self._analysis.table):
            raise InputError("report: not a subnet of this GETA.", expected="what construct_subnet() returned", got=type(subnet).__name__)
        alive = np.ones(len(self.groups), dtype=bool)
        alive[list(facts.removed)] = False
        target = self._optimizer.n_redundant if self._optimizer is not None else None
        plan = self._optimizer.plan if self._optimizer is not None else None
        return build_report(
            self.cost,
            alive,
            weight_bits=facts.weight_bits,
            activation_bits=facts.activation_bits,
            max_abs_difference=facts.max_abs_difference,
            module_kind=info.kind if info is not None else "graph",
            zero_groups=facts.zero_groups,
            approximate_groups=int((~self._analysis.table.exact[list(facts.removed)]).sum()),
            target_group_sparsity=target / len(self.groups) if target is not None and len(self.groups) else None,
            metrics=metrics,
            rounding=(facts.round_to, facts.rounded),
            dynamic_axes=info.sizes.dynamic_axes if info is not None and info.sizes is not None else None,
            predicted_rise=None if plan is None else plan.rise,
            allocation=None if self._optimizer is None else reasons(self._optimizer),
        )


def _bits(quantizers: Mapping[str, Quantizer]) -> dict[str, int | float]:
    """Bits by layer; on the meta device, where nothing has a value, the initial ones."""
    return {
        layer: q.initial_bits if q.step_size.is_meta else nearly_whole(float(q.bit_width())) for layer, q in quantizers.items()
    }
