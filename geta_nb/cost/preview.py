"""Preview: what a budget comes to before any training. In: a cost model, the groups and a budget. Out: figures, and what they assume.

Exact for given groups and bits. Before groups are chosen it removes evenly over the families and spends the fewest bits allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from geta_nb.cost.allocation import lowest_bits
from geta_nb.cost.model import Bits, CostModel
from geta_nb.cost.totals import Costs, compare_layers
from geta_nb.errors import BudgetError
from geta_nb.groups import BoolArray, IntArray, group_flags, removal_order, round_up

if TYPE_CHECKING:
    from geta_nb.budget import Budget
    from geta_nb.groups import Group, GroupTable


@dataclass(frozen=True, repr=False)
class Preview(Costs):
    """What the finished network will cost: its figures and layers, those of the ``dense`` fp32 model, and what they rest on.

    Attributes:
        group_sparsity: zero groups / prunable groups.
        bit_widths: layer -> bits of weights that the figures count.
        activation_bit_widths: layer -> bits of inputs that the figures count.
        assumptions: in words, what is assumed where nothing is decided yet.
        predicted_rise: of the loss, before training on; None: nobody was asked.
        rises: what carries it: "weights of LAYER", "input of LAYER", "groups of FAMILY" -> rise, the largest first.
    """

    group_sparsity: float
    bit_widths: dict[str, float]
    activation_bit_widths: dict[str, float]
    assumptions: tuple[str, ...]
    predicted_rise: float | None = None
    rises: Mapping[str, float] = field(default_factory=dict)

    @property
    def assumption(self) -> str:
        """All assumptions in one line."""
        return "; ".join(self.assumptions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        names = ("group_sparsity", "bit_widths", "activation_bit_widths", "assumption")
        rows = [asdict(row) for row in compare_layers(self)]
        found = self.figures() | {name: getattr(self, name) for name in names} | {"dense": self.dense.figures(), "layers": rows}
        return found if self.predicted_rise is None else found | {"predicted_rise": self.predicted_rise, "rises": dict(self.rises)}


def preview(
    cost: CostModel,
    table: GroupTable,
    budget: Budget,
    *,
    groups: Iterable[int | Group] | None = None,
    alive: BoolArray | None = None,
    weight_bits: Bits | None = None,
    activation_bits: Bits | None = None,
    price: Callable[[BoolArray, Bits, Bits], Mapping[str, float]] | None = None,
    order: IntArray | None = None,
) -> Preview:
    """Return what the network costs when the budget is met.

    Args:
        cost: the cost model of the network.
        table: its groups.
        budget: what is asked for.
        groups: exactly these groups are removed (indices or groups); not together with ``alive``.
        alive: exactly these groups live, bool [G]; None and no ``groups``: chosen evenly, as the budget says.
        weight_bits: layer -> bits; None: the fewest that each layer may come to, see ``allocation``.
        activation_bits: layer -> bits of its input quantizer; None: the same.
        price: (alive, weight bits, input bits) -> part -> rise of the loss; None: not asked for.
        order: all groups that may go, in the order in which they would; None: evenly over the families.

    Raises:
        BudgetError: the budget asks for more than may be removed, or an exception matches no layer.
        ConfigError: ``groups`` are none of this network.
    """
    _check_exceptions(cost, table, budget)
    fewest = np.ones(cost.n_groups, dtype=bool)
    fewest[removal_order(table, budget)] = False
    w_low, a_low = lowest_bits(cost, budget, fewest)
    w_bits, a_bits = _floats(weight_bits, w_low), _floats(activation_bits, a_low)
    given = {"weight bits": weight_bits, "input bits": activation_bits}
    uniform = budget.allocation == "uniform" or budget.target is None
    low = "at the low end of their range" if uniform else "at their lowest, which is more where a layer costs little"
    low += ", until the run has measured what they are worth" if budget.allocation == "joint" and not uniform else ""
    sources = [f"{name} {low if bits is None else 'as given'}" for name, bits in given.items()]
    if groups is not None:
        alive = ~group_flags(groups, cost.n_groups, "preview")
    if alive is None:
        alive, n_zero = expected_alive(cost, table, budget, w_bits, a_bits, order=order)
        choice = _describe_choice(n_zero, n_zero - int((~alive).sum()), table, budget, evenly=order is None)
    else:
        n_zero = int(cost.n_groups - alive.sum())
        choice = f"exactly {n_zero} given groups removed"
    after = cost.evaluate(alive, w_bits, a_bits)
    rises = dict(sorted(price(alive, w_bits, a_bits).items(), key=lambda part: -part[1])) if price is not None else {}
    return Preview(
        **after.figures(), layers=after.layers, dense=after.dense, group_sparsity=n_zero / cost.n_groups if cost.n_groups else 0.0,
        bit_widths=w_bits, activation_bit_widths=a_bits, assumptions=(choice, *sources),
        predicted_rise=None if price is None else math.fsum(rises.values()), rises=rises,
    )


def _floats(given: Bits | None, default: dict[str, float]) -> dict[str, float]:
    return default if given is None else {layer: float(bits) for layer, bits in given.items()}


def _describe_choice(zero: int, kept: int, table: GroupTable, budget: Budget, *, evenly: bool) -> str:
    how = f"evenly over {len(table.family_names)} families in proportion to their size" if evenly else "where the loss rises least"
    text = f"{zero} of {table.n_groups} groups removed, {how}"
    if budget.target:
        text += f", just enough for {budget.target[0]} <= {budget.target[1]:g}"
    if budget.round_to > 1:
        text += f", the channels that stay rounded up to a multiple of {budget.round_to} ({kept} of those kept for it)"
    return text


def _check_exceptions(cost: CostModel, table: GroupTable, budget: Budget) -> None:
    names = [axis_map.parameter for axis_map in table.axis_maps] + [p.name for p in cost.parameters]
    names += [name for op in cost.operators for name in (op.layer, op.module_path, op.weight, op.activation) if name]
    budget.check_names(names)


def expected_alive(
    cost: CostModel, table: GroupTable, budget: Budget, weight_bits: Mapping[str, float], activation_bits: Mapping[str, float],
    *, order: IntArray | None = None,
) -> tuple[BoolArray, int]:
    """Return the groups that are kept by uniform removal, or by removal in ``order``, bool [G], and K, the number of zero groups.

    With ``round_to`` more groups are kept than are not zero.

    Raises:
        BudgetError: the budget asks for more than may be removed.
    """
    order = removal_order(table, budget) if order is None else order
    settle = partial(round_up, table, round_to=budget.round_to)
    if budget.target:
        name, value = budget.target
        n_zero = cost.prefix_for_target(
            order, value, name, weight_bits=weight_bits, activation_bits=activation_bits, settle=settle
        )
    else:
        n_zero = budget.n_redundant(table.n_groups)
    if n_zero > len(order):
        raise BudgetError(
            "preview: the budget asks for more groups than may be removed.", expected=f"at most {len(order)} of {table.n_groups} groups",
            got=f"group_sparsity={budget.group_sparsity}, {n_zero} groups",
            hint=f"Budget(group_sparsity={math.floor(1000 * len(order) / table.n_groups) / 1000}): every family keeps one group",
        )
    alive = np.ones(table.n_groups, dtype=bool)
    alive[order[:n_zero]] = False
    return settle(alive), n_zero
