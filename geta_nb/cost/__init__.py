"""Stage 5: what a network costs: MACs, BOPs in both countings, bytes; before training, and after.

In: operators and parameters as products of group extents, and a budget. Out: a :class:`CostModel`, the exact :class:`Preview` of a budget,
and the :class:`Report` of a subnet.
"""

from geta_nb.cost.allocation import ENOUGH, lowest_bits
from geta_nb.cost.model import CostModel
from geta_nb.cost.preview import Preview, expected_alive, preview
from geta_nb.cost.report import Report, build_report
from geta_nb.cost.totals import FP32_BITS, Costs, LayerCost, OperatorCost, ParameterCost, Totals, compare_layers

__all__ = [
    "ENOUGH",
    "FP32_BITS",
    "CostModel",
    "Costs",
    "LayerCost",
    "OperatorCost",
    "ParameterCost",
    "Preview",
    "Report",
    "Totals",
    "build_report",
    "compare_layers",
    "expected_alive",
    "lowest_bits",
    "preview",
]
