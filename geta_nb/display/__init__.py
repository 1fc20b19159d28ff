"""Stage 14: how every object shows itself: pure functions from an object to text, HTML and SVG.

In: any object of the stages before. Out: the registry ``geta_nb.views.VIEWS``, filled, and the parts that pictures of one's own are
made of. One file a kind of object; ``wording``, ``theme``, ``markup``, ``drawing``, ``charts`` and ``page`` are what they share.
Imports no plotting library and no widget; the core does not know this room.
"""

from __future__ import annotations

from geta_nb.budget import Budget, LayerBudget
from geta_nb.centering import Centered
from geta_nb.config import QuantConfig
from geta_nb.cost import Costs, Preview, Report, Totals
from geta_nb.display import (
    allocation,
    centering,
    config,
    cost,
    geta,
    groups,
    latency,
    optimizer,
    qadg,
    quantizers,
    report,
    sensitivity,
    subnet,
    trace,
)
from geta_nb.geta import GETA
from geta_nb.graph import Trace, TraceNode
from geta_nb.groups import Family, Group, GroupList, ProtectedList
from geta_nb.latency import LatencyTable
from geta_nb.qadg import QADG, Branch, Vertex
from geta_nb.qasso import QASSO, Allocation, Rules, Schedule
from geta_nb.quantizers import Quantizer, Quantizers
from geta_nb.sensitivity import Front, FrontPoint, Sensitivity
from geta_nb.subnet import SubnetInfo, WeightFormat
from geta_nb.views import VIEWS, View

__all__ = [
    "allocation",
    "charts",
    "drawing",
    "layout",
    "markup",
    "page",
    "pareto",
    "qadg",
    "small_graph",
    "theme",
    "training",
    "wording",
]

VIEWS.update(
    {
        QuantConfig: View(config.quant_text, config.quant_html),
        Budget: View(config.budget_text, config.budget_html),
        LayerBudget: View(config.layer_budget_text, config.layer_budget_html),
        Schedule: View(config.schedule_text, config.schedule_html, config.schedule_svg),
        Centered: View(centering.centered_text, centering.centered_html),
        Trace: View(trace.trace_text, trace.trace_html),
        TraceNode: View(trace.node_text),
        Group: View(groups.group_text, groups.group_html),
        Family: View(groups.family_text, groups.family_html),
        GroupList: View(groups.groups_text, groups.groups_html),
        ProtectedList: View(groups.protected_text, groups.protected_html),
        QADG: View(qadg.qadg_text, qadg.qadg_html, qadg.qadg_svg),
        Vertex: View(qadg.vertex_text),
        Branch: View(qadg.branch_text),
        Quantizer: View(quantizers.quantizer_text, quantizers.quantizer_html, quantizers.quantizer_svg),
        Quantizers: View(quantizers.quantizers_text, quantizers.quantizers_html),
        Rules: View(config.rules_text),
        Allocation: View(allocation.allocation_text, allocation.allocation_html),
        QASSO: View(optimizer.optimizer_text, optimizer.optimizer_html),
        Totals: View(cost.costs_text, cost.totals_html),
        Costs: View(cost.costs_text, cost.costs_html, cost.costs_svg),
        Preview: View(cost.costs_text, cost.preview_html, cost.costs_svg),
        GETA: View(geta.geta_text, geta.geta_html),
        LatencyTable: View(latency.latency_text, latency.latency_html, latency.latency_svg),
        Report: View(report.report_text, report.report_html, report.report_svg),
        Sensitivity: View(sensitivity.sensitivity_text, sensitivity.sensitivity_html, sensitivity.sensitivity_svg),
        Front: View(sensitivity.front_text, sensitivity.front_html, sensitivity.front_svg),
        FrontPoint: View(sensitivity.point_text),
        SubnetInfo: View(subnet.subnet_text, subnet.subnet_html),
        WeightFormat: View(subnet.format_text),
    }
)
