"""QASSO: any torch optimizer, led so that at the end exactly K groups are zero and every bit width is an integer in its range.

Comes in: a built optimizer, the groups, the quantizers, a budget and a schedule. Goes out: the same weights, trained, with all constraints
met after ``schedule.cool_down_start`` steps. ``pruning`` holds what happens to groups, ``projection`` what happens to bits.

Source: Qu et al. 2025, arXiv:2502.16638, and the official code; where it differs from both, README says what was measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geta_nb.budget import Budget
from geta_nb.errors import CheckpointError, NonFiniteError
from geta_nb.files import check_qasso_part
from geta_nb.qasso.allocation import Allocation
from geta_nb.qasso.binding import Binding
from geta_nb.qasso.bundle import Bundle
from geta_nb.qasso.closures import calls_once, first_known, go_back, whole
from geta_nb.qasso.fixed import Fixed
from geta_nb.qasso.guard import Known, check_arguments, check_gradients, check_loss, warn_of_collapse, warn_of_no_gradient
from geta_nb.qasso.holding import bound_to, hold
from geta_nb.qasso.members import Members, Products
from geta_nb.qasso.moving import Places, state_follows
from geta_nb.qasso.own_group import add_own_group
from geta_nb.qasso.projection import QuantizerBank
from geta_nb.qasso.pruning import Pruner
from geta_nb.qasso.ranks import is_first
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.saved import check_own, load_own, own_part, own_state
from geta_nb.qasso.schedule import WARM_UP, Schedule
from geta_nb.qasso.snapshot import snapshot
from geta_nb.views import Shown

if TYPE_CHECKING:
    from geta_nb.cost import CostModel
    from geta_nb.groups import GroupTable
    from geta_nb.quantizers import Quantizers

WATCHED_EVERY = 4
"""Steps of which the inputs of one are counted."""


class QASSO(Shown, torch.optim.Optimizer):
    """Holds a torch optimizer and shares its ``param_groups`` and ``state``, so schedulers, scalers and hooks see the usual thing.

    Args:
        inner: the built optimizer. Quantizer parameters that are in none of its groups get one of their own.
        table: the groups.
        parameters: original name -> parameter (``.original`` where parametrized).
        quantizers: ``.weights``, ``.activations`` (layer -> quantizer) and ``.parameter_layer``; None: pruning only.
        cost: prices a choice of groups and bits; needed for a cost target.
        budget: what has to hold at the end.
        schedule: when.
        lr_quant: learning rate of d, q_m and t, >= 0.
        rules: a :class:`Rules` or ``"default"`` / ``"paper"``.
        saliency, forgetting: replace one of the rules by name.
        check_finite: look for NaN and infinity in the gradients before each step; costs one wait for the device.

    Raises:
        ConfigError: an argument of the wrong kind.
        BudgetError: the budget cannot be met by this network, whatever the training.

    Attributes: ``parameters``: own name -> parameter of the model; those of quantizers are none of these.

    Laws: after the last step of the schedule exactly K groups are zero and every bit width is an integer within its range; with nothing to
    prune and no quantizer, a step is the inner step, bit for bit.
    """

    budget, schedule = Fixed[Budget](), Fixed[Schedule]()

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        *,
        table: GroupTable,
        parameters: Mapping[str, torch.nn.Parameter],
        quantizers: Quantizers | None = None,
        cost: CostModel | None = None,
        budget: Budget,
        schedule: Schedule,
        lr_quant: float = 1e-3,
        rules: Rules | str = "default",
        saliency: str | None = None,
        forgetting: str | None = None,
        check_finite: bool = True,
    ) -> None:
        check_arguments(inner, budget, schedule, lr_quant)
        self.inner, self.budget, self.schedule, self.lr_quant = inner, budget, schedule, lr_quant
        self.rules, self.check_finite, self.steps_done = Rules.of(rules, saliency, forgetting), check_finite, 0
        weights = quantizers.weights if quantizers else {}
        activations = quantizers.activations if quantizers else {}
        layer_of = quantizers.parameter_layer if quantizers else {}
        budget.check_names([*parameters, *weights, *activations])
        ranges = [budget.weight_bits(layer) for layer in weights] + [budget.activation_bits(layer) for layer in activations]
        named = quantizers.quantized_tensors(parameters) if quantizers else {}
        self.bank = QuantizerBank(weights, activations, ranges, tensors=named if self.rules.refit else None)
        index = {layer: i for i, layer in enumerate(weights)}
        layers = {name: index[layer] for name, layer in layer_of.items() if layer in index}
        self.pruner = Pruner(table, parameters, layers, self.bank, budget=budget, schedule=schedule, rules=self.rules, cost=cost)
        self._table, self.family_names = table, list(table.family_names)
        self.parameters, self._layer_of = dict(parameters), {**layer_of, **(quantizers.computed if quantizers else {})}
        self._names = {id(p): name for name, p in reversed(list(parameters.items()))}
        for kind, found in (("weight", weights), ("input", activations)):
            for layer, quantizer in found.items():
                self._names |= {id(p): f"{layer} ({kind} quantizer, {name})" for name, p in quantizer.named_parameters()}
        self._bundle: Bundle | None = None
        self._binding = Binding()
        self._share_inner()
        add_own_group(inner, self.bank.parameters(), lr_quant)
        self._bundle = Bundle.largest(inner, self.bank.parameters())
        self._places = Places([p for group in inner.param_groups for p in group["params"]])
        self._watch()

    def attach(self, model: torch.nn.Module) -> None:
        """Follow the model that is trained: its tensors, also once they are sharded, its buffers, and the samples of a step."""
        self._binding = Binding(model, self.parameters, self.bank.parameters())
        self.register_step_pre_hook(self._binding)
        self.pruner.count_samples(model)
        self.pruner.members.with_buffers_of(model)

    def take_over(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Take the tensors of a model that was sharded since, under the same names, for those trained so far."""
        self.parameters = {name: parameters[name] for name in self.parameters}
        self._names |= {id(p): name for name, p in reversed(list(self.parameters.items()))}
        self.pruner.bind(Members(self._table, self.parameters))
        self.bank.bind(self.parameters, self._layer_of)
        self._places = Places([p for group in self.param_groups for p in group["params"]])

    def _share_inner(self) -> None:
        """Set up the hooks of the base class, and leave groups and state to the inner optimizer."""
        groups, state = self.inner.param_groups, self.inner.state
        super().__init__(groups, self.inner.defaults)
        self.inner.param_groups, self.inner.state = groups, state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The inner optimizer's parameter groups, the very list."""
        return self.inner.param_groups

    @param_groups.setter
    def param_groups(self, value: list[dict[str, Any]]) -> None:
        self.inner.param_groups = value

    @property
    def state(self) -> Any:
        """The inner optimizer's state, the very dictionary."""
        if self._bundle is not None:
            self._bundle.unpack()
        return self.inner.state

    @state.setter
    def state(self, value: Any) -> None:
        self.inner.state = value

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __deepcopy__(self, memo: dict[int, Any]) -> QASSO:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        # an id belongs to one object: those of a copy are others
        twin._names = {id(memo[key]): name for key, name in self._names.items() if key in memo}
        twin._watch(fade=False)
        return twin

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the inner optimizer."""
        self.inner.add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset all gradients, as the inner optimizer does."""
        self.inner.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step of whichever stage it belongs to.

        Args:
            closure: computes the loss and gradients again; a closure called more than once (LBFGS) is checked each time.

        Returns:
            What the closure returned, or None.

        Raises:
            NonFiniteError: NaN or infinity in the loss or a gradient; nothing was changed.

        Warns:
            CollapseWarning: of a family's groups all but one begin to fade.
            GetaWarning: groups are chosen by the size of their weights, for no gradient reaches them.
        """
        self._follow()
        loss = self._evaluate(closure) if closure else None
        before = None if closure is None or calls_once(self.inner) else whole(self)
        products = self.pruner.observe(self.steps_done)
        bundle = self._gathered()
        if self.check_finite:
            self._check_gradients(products, bundle)
        self.pruner.before(self.steps_done)
        self._tie(bundle)
        again = None if closure is None else first_known(loss, lambda: self._evaluate(closure))
        step = self.inner.step if again is None else partial(self.inner.step, again)
        try:
            if bundle is None:
                step()
            else:
                bundle.step(step)
        except NonFiniteError:  # of a later call of the closure: by then the inner optimizer has moved
            if before is not None:
                go_back(self, *before)
            raise
        self.steps_done += 1
        self._project(bundle)
        self.pruner.after(self.steps_done)
        if self.steps_done == self.schedule.cool_down_start and self.bank.frozen is None:
            self.bank.freeze(self.bank.rounded_bits(self.bank.bound))
        self._watch()
        self._warn()
        return loss

    def _warn(self) -> None:
        """Say what the last choice did to layers: at the end of a step, which is whole then even where warnings are errors."""
        (collapsing, self.pruner.collapsing), (unmoved, self.pruner.unmoved) = (self.pruner.collapsing, []), (self.pruner.unmoved, [])
        if unmoved and is_first():
            warn_of_no_gradient(self._table, unmoved, self.steps_done)
        if collapsing and is_first():
            warn_of_collapse(self._table, collapsing, self.budget, self.steps_done)

    def _follow(self) -> None:
        """Bind all to where the parameters are now, if the model moved since the last step."""
        if self._places.moved():
            if self._bundle is not None:
                self._bundle.unpack()
            state_follows(self.inner)
            self._bundle = Bundle.largest(self.inner, self.bank.parameters())
            self.bank.follow()
            self.pruner.follow()

    def _gathered(self) -> Bundle | None:
        """Return the bundle, filled; None, and the state of each quantizer's parameters in its place, where it cannot be used."""
        if self._bundle is None or self._bundle.gather():
            return self._bundle
        self._bundle.unpack()
        return None

    def _check_gradients(self, products: Products | None, bundle: Bundle | None) -> None:
        sums, covered = ([products.total], products.covered) if products is not None else ([], frozenset[int]())
        if bundle is not None and bundle.flat.grad is not None:
            sums, covered = [*sums, bundle.flat.grad.sum()], covered | bundle.ids
        check_gradients(self.param_groups, self._names, self.steps_done, known=Known(sums, covered, self.pruner.add_up))

    def _project(self, bundle: Bundle | None) -> None:
        bank, done = self.bank, self.steps_done
        if not len(bank):
            return
        moved = self.pruner.let_fall(done)
        anywhere = self.schedule.stage(done - 1) == WARM_UP
        whole = bundle is not None and len(bundle) == bank.n_trained
        if bundle is not None and whole:
            bank.settle(bundle.flat, anywhere=anywhere)
        if bundle is not None:
            bundle.scatter()
        if not whole:
            bank.keep_positive()
            bank.constrain(anywhere=anywhere)
        if moved and bank.frozen is None:
            bank.refit(moved, bank.bound)

    def _tie(self, bundle: Bundle | None) -> None:
        """Hand the gradients of steps that cannot shrink on to what they depend on."""
        begun = self.schedule.stage(self.steps_done) != WARM_UP and self.rules.tie == "bound"
        if len(self.bank) and self.rules.tie != "never" and (begun or self.bank.frozen is not None):
            all_of_it = bundle is not None and len(bundle) == self.bank.n_trained
            self.bank.tie(bundle.flat if bundle is not None and all_of_it else None)
            if bundle is not None and not all_of_it:  # the parameters' own gradients have changed
                bundle.read_gradients()

    def _watch(self, *, fade: bool = True) -> None:
        """Let inputs be counted on some of the steps until no width will fall any more."""
        if self.bank.histograms and (self.bank.frozen is None or self.bank.watching):
            self.bank.watch(self.bank.frozen is None and self.steps_done % WATCHED_EVERY == 0, fade=fade)

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        with torch.enable_grad():
            loss = closure()
        if self.check_finite:
            check_loss(loss, self.steps_done)
        return loss

    @property
    def stage(self) -> str:
        """Stage of the next step: ``"warm-up"``, ``"projection"``, ``"joint"`` or ``"cool-down"``; joint where two overlap."""
        return self.schedule.stage(self.steps_done)

    @property
    def group_mask(self) -> NDArray[np.bool_]:
        """Which groups live, bool [G]; the others are exactly zero and stay so."""
        return self.pruner.alive.cpu().numpy().copy()

    @property
    def n_redundant(self) -> int | None:
        """K, the number of groups that will be zero; None for a cost target, where it follows from the cost."""
        return self.pruner.n_redundant

    def bit_widths(self) -> dict[str, float]:
        """Bits of each weight quantizer by layer; integers once they are fixed, which is in the cool-down at the latest."""
        return self.bank.by_layer("weight", self._bits())

    def activation_bit_widths(self) -> dict[str, float]:
        """Bits of each input quantizer by layer; integers once they are fixed."""
        return self.bank.by_layer("activation", self._bits())

    def _bits(self) -> list[float]:
        return [*self.bank.frozen] if self.bank.frozen is not None else self.bank.bits()

    def schedule_spans(self) -> dict[str, tuple[int, int | None]]:
        """First step and first step after each stage; the cool-down is open."""
        return self.schedule.spans()

    @property
    def plan(self) -> Allocation | None:
        """How a cost target is split between bits and groups, and why; None with another target or rules, or before the first plan."""
        return self.pruner.plan

    def progress(self) -> dict[str, Any]:
        """Return a JSON-able snapshot for live views, with the keys of ``qasso.snapshot``; waits for the device when it is called."""
        return snapshot(self)

    def hold(self, model: torch.nn.Module | None = None) -> None:
        """Hold weights that no step of this run made, such as an average of several steps', to what the run has reached, in place.

        Groups that went are zero again, and bit widths are the fixed ones (before they are fixed: inside their ranges). All else stays.

        Args:
            model: a copy or an average of the trained model (``torch.optim.swa_utils.AveragedModel``); None: the trained model itself,
                into which other weights were loaded.

        Raises:
            InputError: another model, or a copy without quantizers; nothing was changed.
        """
        members, bank = self.pruner.members, self.bank
        if model is not None:
            members, bank = bound_to(model, self._table, bank, self.parameters, self._layer_of)
        self._binding.reshard()
        hold(members, bank, self.pruner.alive)

    def saliency(self) -> dict[str, Any]:
        """Return what decides which groups go next, for live views: waits for the device.

        Keys: ``scores`` (float [G], the lowest goes first; this process's share of a distributed run), ``alive``, ``fading`` (bool [G]).
        """
        scores = self.pruner.scores().numpy()
        return {"scores": scores, "alive": self.group_mask, "fading": self.pruner.redundant.cpu().numpy().copy()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything a resumed run needs: the inner optimizer's state, and under ``"qasso"`` our own. Plain tensors and values."""
        own = self.own_state()
        return {**self.inner.state_dict(), "qasso": own}

    def own_state(self) -> dict[str, Any]:
        """Return what of :meth:`state_dict` is not the inner optimizer's, whose state is that of each parameter then."""
        if self._bundle is not None:
            self._bundle.unpack()
        return own_state(self)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; the weights come from the model's own state dict, before or after.

        Raises:
            CheckpointError: a state of another optimizer, model, budget or schedule.
        """
        own = own_part(state_dict)
        self.check_own_state(own)
        if self._bundle is not None:
            self._bundle.unpack()
        try:
            self.inner.load_state_dict({k: v for k, v in state_dict.items() if k != "qasso"})
        except (KeyError, TypeError, ValueError) as error:  # torch compares the parameter groups before it changes anything
            raise CheckpointError("QASSO.load_state_dict: saved by another run.", at="param_groups", got=str(error)) from None
        self.load_own_state(own)

    def check_own_state(self, own: dict[str, Any]) -> None:
        """Raise :class:`CheckpointError` where :meth:`own_state` of another run is given; changes nothing."""
        check_own(own, self)
        check_qasso_part(own, len(self.group_mask), len(self.bank), self.bank.counted(), self.pruner.joint_state())

    @torch.no_grad()
    def load_own_state(self, own: dict[str, Any]) -> None:
        """Restore :meth:`own_state`."""
        load_own(self, own)
        self._watch(fade=False)
