"""The joint stage's work on groups: score them, choose the redundant ones, let them fade, and keep the dead ones at zero.

Comes in: gradients and weights, step by step. Goes out: the same weights, changed in place. The optimizer calls :meth:`Pruner.before` and
:meth:`Pruner.after` around the inner step; only the start of a period waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from geta_nb.budget import Budget
from geta_nb.cost import lowest_bits
from geta_nb.qasso import ranks
from geta_nb.qasso.allocation import Allocation
from geta_nb.qasso.forgetting import paper_rates, split_quantized, uniform_rate
from geta_nb.qasso.guard import collapsing_families
from geta_nb.qasso.joint import JointTarget, Measured, is_joint
from geta_nb.qasso.members import Elements, Factors, Members, Products
from geta_nb.qasso.plan import choose_count, count_redundant, find_limits, removal_order
from geta_nb.qasso.projection import QuantizerBank
from geta_nb.qasso.rises import Rises
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.saliency import family_share, fisher_scores, paper_scores, taylor_scores, without_gradient
from geta_nb.qasso.samples import Samples
from geta_nb.qasso.schedule import JointPeriod, Schedule
from geta_nb.qasso.target import CostTarget

if TYPE_CHECKING:
    from geta_nb.cost import CostModel
    from geta_nb.groups import GroupTable


class _Fading(NamedTuple):
    """What the paper's rule remembers over the inner step: values, c, R and the uniform rate."""

    before: Tensor
    forgotten: Tensor
    residual: Tensor
    rate: float


class _Observed(NamedTuple):
    """What a step's gradients say of groups and of rounding, and whether that is of all ranks already."""

    products: Products
    rises: Tensor | None
    whole: bool


class Pruner:
    """Decides which groups go and takes them to zero.

    Args:
        table: the groups.
        parameters: original name -> parameter.
        layers: parameter name -> index of its weight quantizer in ``bank``.
        bank: all quantizers.
        budget, schedule, rules: what, when, how.
        cost: needed for a cost target.

    Attributes:
        alive: bool [G]; the others are exactly zero.
        redundant: bool [G]; those that fade in this period.
        n_redundant: K, or None for a cost target.
        collapsing: families that the last choice leaves with one group.
        unmoved: families that a choice judged by the size of their weights, for want of a gradient; each is in it once.

    Raises:
        BudgetError: the budget cannot be met.
    """

    def __init__(
        self,
        table: GroupTable,
        parameters: Mapping[str, Tensor],
        layers: Mapping[str, int],
        bank: QuantizerBank,
        *,
        budget: Budget,
        schedule: Schedule,
        rules: Rules,
        cost: CostModel | None,
    ) -> None:
        self.members, self.layers, self.bank = Members(table, parameters), layers, bank
        self.schedule, self.rules = schedule, rules
        self.limits = find_limits(table, budget)
        fixed = count_redundant(self.limits, budget, schedule.joint_steps)
        self.n_redundant = None if budget.target else fixed
        joint = is_joint(budget, rules, bank, cost)
        self._joint = JointTarget(cost, self.limits, bank, budget, schedule, table.family_names, rules) if joint else None
        self._rises = Rises(bank) if self._joint is not None else None
        if cost is not None and self._joint is None:
            bank.hold_above(*lowest_bits(cost, budget, self.limits.fewest_alive()))
        self._target = CostTarget(cost, self.limits, bank, budget, schedule) if budget.target and self._joint is None else None
        self._sizes = torch.from_numpy(np.array(table.group_size, dtype=np.int64))
        device = self.members.device
        self.alive = torch.ones(table.n_groups, dtype=torch.bool, device=device)
        self.redundant = torch.zeros_like(self.alive)
        self.average = torch.zeros(table.n_groups, device=device)
        self._factors: Factors | None = None
        self._fades = False
        self._elements: Elements | None = None
        self._fading: _Fading | None = None
        self.collapsing: list[int] = []
        self.unmoved: list[int] = []
        self._named: set[int] = set()
        self._observed: _Observed | None = None
        self._samples: Samples | None = None

    @property
    def active(self) -> bool:
        """Whether anything will ever be pruned."""
        return self.schedule.joint_steps > 0 and self.n_redundant != 0

    def bind(self, members: Members) -> None:
        """Take other tensors of the same groups; before the first step."""
        self.members = members
        self._set_redundant(self.redundant)

    def count_samples(self, model: torch.nn.Module) -> None:
        """Let ``model``'s next passes, until the next step, say how many samples a step has; only where a plan wants to know."""
        if self._joint is not None and self._joint.samples is None:
            self._samples = Samples(model)

    def observe(self, step: int) -> Products | None:
        """Read <x, g> of all groups where ``step`` wants them, of what this rank has: :meth:`add_up` asks the others. Changes nothing."""
        self._observed = None
        if self._observes(step):
            products = self.members.of_this_rank().products()
            self._observed = _Observed(products, None if self._rises is None else self._rises.read(), self.members.shards is None)
        return None if self._observed is None else self._observed.products

    def add_up(self, total: Tensor) -> Tensor:
        """Return ``total``, 0-dim, added up over all ranks; what was observed is added up in the same message. All ranks must ask."""
        shards, found = self.members.shards, self._observed
        if shards is None:
            return total
        if found is None or found.whole:
            return shards.sum(total)
        own = [] if found.rises is None else [found.rises]
        total, per_group, *rises = shards.sums([total.to(self.members.device), found.products.per_group, *own])
        self._observed = _Observed(found.products._replace(per_group=per_group), rises[0] if rises else None, True)
        return total

    def before(self, step: int) -> None:
        """Take the gradients of ``step`` into account, and choose groups where a period begins."""
        if self._samples is not None and self._joint is not None:
            self._joint.samples, self._samples = self._samples.take() or self._joint.samples, None
        if self._observed is not None:
            if not self._observed.whole:
                self.add_up(self._observed.products.total)
            seen = self._observed.products.per_group.to(self.average.dtype)
            if self._rises is not None and self._observed.rises is not None:
                self._rises.take_in(self._observed.rises, self.rules.average_decay)
            self.average.lerp_(seen.square() if self.rules.saliency == "fisher" else seen, 1 - self.rules.average_decay)
            self._observed = None
        period = self.schedule.joint_period(step)
        if self.active and period and period.k == 0:
            self._choose(period, step)
        if period and self._elements is not None:
            self._remember(self._elements, uniform_rate(period.k, period.length))

    def after(self, steps_done: int) -> None:
        """Let the redundant groups fade, retire them where their period ended, and put every dead group back to zero."""
        period = self.schedule.joint_period(steps_done - 1)
        if self._elements is not None and self._fading is not None:
            self._forget_by_paper(self._elements, self._fading)
        elif period and self._fades and self._factors is not None:
            self._factors.set(self.alive * (1 - uniform_rate(period.k, period.length) * self.redundant))
        if period and period.k == period.length - 1 and self._fades:
            self.alive = self.alive & ~self.redundant
            self._set_redundant(torch.zeros_like(self.redundant))
        if self._factors is not None:
            self._factors.apply()
        self.members.watch(self._observes(steps_done))

    def _observes(self, step: int) -> bool:
        """Whether the moving average takes ``step`` in: from a window before the joint stage until the last choice."""
        if self.rules.saliency == "paper" or not self.active:
            return False
        begin, steps, periods = self.schedule.joint_begin, self.schedule.joint_steps, self.schedule.joint_periods
        first = begin if self._joint is None else min(begin, self.schedule.warmup_steps)
        return first - self.rules.window <= step <= begin + (periods - 1) * steps // periods

    def _scores(self) -> Tensor:
        """Return the saliency of all groups, [G], float64 on the CPU; the same on all ranks of a distributed run."""
        return self.scores(shared=ranks.several())

    def scores(self, *, shared: bool = False) -> Tensor:
        """Return the saliency of all groups, [G], float64 on the CPU; of this rank unless ``shared``, which all ranks must ask for."""
        members = self.members if shared or self.members.shards is None else self.members.of_this_rank()
        averaged = {"fisher": fisher_scores, "taylor": taylor_scores}.get(self.rules.saliency)
        figures = [self.average] if averaged else [*members.square_sums(), members.inner_products()]
        stacked = torch.stack([f.double() for f in figures])
        if shared:
            stacked = ranks.mean(stacked)
        values, alive = stacked.cpu(), self.alive.cpu()
        if averaged:
            family_of, n_families, sparing = members.family_of.cpu(), members.n_families, self.rules.sparing
            found = averaged(values[0], family_of, alive, n_families, sparing)
            unmoved = self._unmoved(values[0], alive)
            if bool(unmoved.any()):
                norms = members.square_sums()[0].double().sqrt().cpu()
                found = torch.where(unmoved[family_of], family_share(norms, family_of, alive, n_families, sparing), found)
            return found
        return paper_scores(values[0], values[1], values[2], self._sizes, alive)

    def _unmoved(self, average: Tensor, alive: Tensor) -> Tensor:
        """Return the families without a gradient so far, bool [F] on the CPU."""
        return without_gradient(average, self.members.family_of.cpu(), alive, self.members.n_families)

    def let_fall(self, steps_done: int) -> list[int]:
        """Lower the upper bounds of all bits as far as the schedule says; return the quantizers that it moves."""
        reductions = self.schedule.reductions(steps_done)
        if self._joint is not None:
            if reductions == self.schedule.reductions(steps_done - 1) or self.bank.frozen is not None:
                return []
            self._joint.make_plan(self._measured(self._joint), self.alive.cpu().numpy(), steps_done, rest=False)
        return self.bank.reduce_bound(reductions * self.schedule.bit_reduction)

    @property
    def plan(self) -> Allocation | None:
        """How the target is split between bits and groups; None where they share no price, or before the first plan."""
        return None if self._joint is None else self._joint.plan

    def _measured(self, joint: JointTarget) -> Measured:
        """Return what gradients have said so far; all ranks must ask. Waits for the device."""
        assert self._rises is not None
        squares, alive = ranks.mean(self.average.double()).cpu(), self.alive.cpu()
        family_of, unmoved = self.members.family_of.cpu(), self._unmoved(squares, alive)
        if bool(unmoved.any()):  # of which nothing is known: as dear as the others are on average, by the size of their weights
            norms = self.members.square_sums()[0].double().cpu()
            known = squares[alive & ~unmoved[family_of]]
            guessed = family_share(norms, family_of, alive, self.members.n_families) * (known.mean() if len(known) else 1.0)
            squares = torch.where(unmoved[family_of], guessed, squares)
        return Measured(squares.numpy(), self._rises.at(joint.widths()))

    def _choose(self, period: JointPeriod, step: int) -> None:
        """Choose the redundant groups of this period."""
        alive, left = self.alive.cpu().numpy(), self.schedule.joint_periods - period.period
        if self._joint is not None:
            rest = step >= self.schedule.projection_end or self.schedule.projection_periods * self.schedule.bit_reduction == 0
            chosen = self._joint.choose_jointly(self._measured(self._joint), alive, left, step, rest=rest)
        elif self._target is not None:
            chosen = self._target.choose(removal_order(self._scores().numpy(), alive, self.limits), alive, left)
        else:
            assert self.n_redundant is not None
            order, last = removal_order(self._scores().numpy(), alive, self.limits), left == 1
            wanted = self.n_redundant * (period.period + 1) // self.schedule.joint_periods - int((~alive).sum())
            chosen = choose_count(order, wanted, self.limits, exactly=last)
        redundant = np.zeros(len(alive), dtype=bool)
        redundant[chosen] = True
        self.collapsing = collapsing_families(self.limits.family_of, alive, alive & ~redundant)
        self._note_unmoved()
        self._set_redundant(torch.from_numpy(redundant).to(self.alive.device))

    def _note_unmoved(self) -> None:
        """Note the families that are judged by the size of their weights, each once a run."""
        if self.rules.saliency != "paper":
            families = self._unmoved(self.average.double().cpu(), self.alive.cpu()).nonzero().flatten().tolist()
            self.unmoved = sorted({*families} - self._named)
            self._named |= {*families}

    def _set_redundant(self, redundant: Tensor) -> None:
        self.redundant, self._fades, self._fading = redundant, bool(redundant.any()), None
        by_paper = self._fades and self.rules.forgetting == "paper"
        self._elements = self.members.elements(redundant, self.layers) if by_paper else None
        concerned = ~self.alive if by_paper else ~self.alive | redundant
        self._factors = self.members.factors(concerned) if bool(concerned.any()) else None
        if self._factors is not None:
            self._factors.set(self.alive.to(torch.float32))

    def _remember(self, elements: Elements, rate: float) -> None:
        """Keep what the paper's rule needs of the weights before the inner step: x, c and R, of x^Q = c + d R."""
        x, n_q = elements.take(), elements.n_quantized
        forgotten, residual = x, x[:n_q]
        if n_q:
            v = self.bank.vectors()
            step, clip, exponent = (part.to(elements.device)[elements.layer] for part in v)
            bent, residual = split_quantized(x[:n_q], step, clip, exponent)
            forgotten = torch.cat([bent, x[n_q:]])
        self._fading = _Fading(x, forgotten, residual, rate)

    def _forget_by_paper(self, elements: Elements, fading: _Fading) -> None:
        """x <- x - gamma (c + d R) with the paper's gamma and d, after the inner step showed the direction."""
        after, n_q = elements.take(), elements.n_quantized
        self._fading = None
        quantized = len(elements.pair_layer) > 0  # on some rank: all take the same rates and steps, whatever they have of it
        if not quantized:
            one = torch.ones(elements.n_layers, dtype=after.dtype, device=elements.device)
            few = many = one
        else:
            v = self.bank.vectors()
            low, high = self.bank.range_levels(v.step)
            top = v.clip**v.exponent
            few, many = ((top / n)[: elements.n_layers].to(elements.device) for n in (low, high))
        rates = paper_rates(
            elements, fading.forgotten, fading.residual, fading.before - after, rate=fading.rate, widest=few, finest=many, rules=self.rules
        )
        shift = fading.forgotten
        if quantized:
            shift = torch.cat([shift[:n_q] + rates.step_size[elements.layer] * fading.residual, shift[n_q:]])
            steps = v.step.clone()
            steps[: elements.n_layers] = torch.where(rates.set_step, rates.step_size, steps[: elements.n_layers].to(elements.device))
            self.bank.write(steps)
        elements.put(after - rates.gamma[elements.family] * shift)

    def follow(self) -> None:
        """Go where the members' tensors are, which may have moved; between steps."""
        self.members.follow()
        device = self.members.device
        self.alive, self.average = self.alive.to(device), self.average.to(device)
        if self._rises is not None:
            self._rises.follow()
        self._set_redundant(self.redundant.to(device))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: living and fading groups, and the average."""
        state = {"alive": self.alive.clone(), "redundant": self.redundant.clone(), "average": self.average.clone()}
        return {**state, "joint": self.joint_state()}

    def joint_state(self) -> dict[str, Any] | None:
        """Return what a resumed run needs of a joint allocation; None where bits and groups share no price."""
        if self._joint is None or self._rises is None:
            return None
        return {"rises": self._rises.average.clone(), "bound_bits": list(self.bank.bound), **self._joint.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`; the bank's lower and frozen bits are in place already."""
        if self._joint is not None and self._rises is not None:
            self._rises.average.copy_(state["joint"]["rises"])
            self.bank.bound = [int(b) for b in state["joint"]["bound_bits"]]
            self._joint.load_state_dict(state["joint"])
        else:
            self.bank.reduce_bound(self.schedule.reductions(int(state["step"])) * self.schedule.bit_reduction)
        device = self.members.device
        self.alive = state["alive"].to(device, torch.bool).clone()
        self.average = state["average"].to(device).clone()
        self._set_redundant(state["redundant"].to(device, torch.bool).clone())
