"""Stage 9: the optimizer that prunes and quantizes jointly: around any torch optimizer.

In: the group table, parameters, quantizers, cost model, a budget and a :class:`Schedule`. Out: a :class:`QASSO`; at its end exactly K
groups are zero and every bit width is a whole number within its range.
"""

from geta_nb.qasso import ranks
from geta_nb.qasso.allocation import Allocation
from geta_nb.qasso.descent import FAMILY, INPUT, KINDS, WEIGHT, Descent, Item, Step
from geta_nb.qasso.distillation import distill
from geta_nb.qasso.forgetting import split_quantized, uniform_rate
from geta_nb.qasso.holding import warn_of_strays
from geta_nb.qasso.members import Members
from geta_nb.qasso.optimizer import QASSO
from geta_nb.qasso.reasons import reasons
from geta_nb.qasso.rules import Rules
from geta_nb.qasso.schedule import Schedule
from geta_nb.qasso.steps import levels, project_step_size

__all__ = [
    "FAMILY",
    "INPUT",
    "KINDS",
    "QASSO",
    "WEIGHT",
    "Allocation",
    "Descent",
    "Item",
    "Members",
    "Rules",
    "Schedule",
    "Step",
    "distill",
    "levels",
    "project_step_size",
    "ranks",
    "reasons",
    "split_quantized",
    "uniform_rate",
    "warn_of_strays",
]
