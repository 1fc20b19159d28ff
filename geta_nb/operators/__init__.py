"""Rules for operators, one file per kind; importing this fills the table."""

from geta_nb.operators import contraction, layout, pointwise, reduction
from geta_nb.operators.registry import RULES, Call, Findings, MacCount, SizeArgument, rule

__all__ = ["RULES", "Call", "Findings", "MacCount", "SizeArgument", "contraction", "layout", "pointwise", "reduction", "rule"]
