"""Stage 2: what goes together. A trace's indices get labels, operators unite them, groups are read off.

In: a traced graph and which tensors are the model's. Out: a :class:`GroupTable` with families, what is protected and why, and the labels
that a cut follows. Architectures are not known by name: one rule an operator, in ``operators/``.
"""

from geta_nb.groups import masking
from geta_nb.groups.extents import BoolArray, ExtentTable, IntArray
from geta_nb.groups.find import find_groups
from geta_nb.groups.labels import Extent, Labels
from geta_nb.groups.masking import alive_groups, group_flags, mask_groups, no_values
from geta_nb.groups.operators.indexing import NUMBERS, written_numbers
from geta_nb.groups.operators.pointwise import is_pointwise
from geta_nb.groups.operators.registry import RULES, Fold, MacCount, Rescale, SizeArgument, register_rule
from geta_nb.groups.propagation import Propagation, propagate, understood
from geta_nb.groups.removal import family_limits, removal_order, round_up, unit_of_families
from geta_nb.groups.table import Family, Group, GroupList, GroupTable, Protected, ProtectedList

__all__ = [
    "NUMBERS",
    "RULES",
    "BoolArray",
    "Extent",
    "ExtentTable",
    "Family",
    "Fold",
    "Group",
    "GroupList",
    "GroupTable",
    "IntArray",
    "Labels",
    "MacCount",
    "Propagation",
    "Protected",
    "ProtectedList",
    "Rescale",
    "SizeArgument",
    "alive_groups",
    "family_limits",
    "find_groups",
    "group_flags",
    "is_pointwise",
    "mask_groups",
    "masking",
    "no_values",
    "propagate",
    "register_rule",
    "removal_order",
    "round_up",
    "understood",
    "unit_of_families",
    "written_numbers",
]
