"""Rules for operators, one file per kind; importing this fills the table."""

from geta_nb.groups.operators import (
    attention,
    contraction,
    convolution,
    indexing,
    joining,
    layout,
    norms,
    pointwise,
    recurrent,
    reduction,
    scatter,
    transforms,
)
from geta_nb.groups.operators.registry import RULES, Call, Findings, MacCount, Rescale, SizeArgument, register_rule, rule

__all__ = [
    "RULES",
    "Call",
    "Findings",
    "MacCount",
    "Rescale",
    "SizeArgument",
    "attention",
    "contraction",
    "convolution",
    "indexing",
    "joining",
    "layout",
    "norms",
    "pointwise",
    "recurrent",
    "reduction",
    "register_rule",
    "rule",
    "scatter",
    "transforms",
]
