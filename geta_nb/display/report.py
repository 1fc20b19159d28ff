"""The view of a finished compression: headline numbers and, layer by layer, channels, bits, BOPs and bytes, before and after.

Reads ``report.to_dict()`` only, whose keys are the public contract; a report read back from JSON therefore looks the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geta_nb.display.allocation import reasons_part
from geta_nb.display.cost import CAPTION, headline, headline_table
from geta_nb.display.layers import layers_picture, layers_table
from geta_nb.display.markup import Cell, Number, Prose, cards, details, facts, figure, fragment, table
from geta_nb.display.wording import MISSING, clean, count, number, percent, plural, shorten, size


def report_text(report: Any) -> str:
    """Return sparsity, size and relative BOPs, with the metrics given."""
    facts_ = report.to_dict()
    sides = _side(facts_, "size_bytes")
    metrics = "".join(f", {shorten(what, 40)} {shorten(value, 40)}" for what, value, _ in _metric_cards(facts_.get("metrics") or {}))
    return (
        f"Report(group sparsity {percent(facts_.get('group_sparsity'))}, {size(sides[1])} of {size(sides[0])}, "
        f"relative BOPs {percent(facts_.get('relative_bops'))} (full counting {percent(facts_.get('relative_bops_full'))}){metrics})"
    )


def _side(facts_: Mapping[str, Any], key: str) -> tuple[Any, Any]:
    pair = facts_.get(key) or {}
    return pair.get("dense"), pair.get("subnet")


def _sides(facts_: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    before: dict[str, Any] = {"relative_bops": 1.0, "relative_bops_full": 1.0}
    after: dict[str, Any] = {key: facts_.get(key) for key in ("relative_bops", "relative_bops_full")}
    for key in ("size_bytes", "parameters", "macs"):
        before[key], after[key] = _side(facts_, key)
    return before, after


def _metric(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) else clean(value)


def _metric_cards(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """One card per metric; ``{"dense": a, "subnet": b}`` compares, a plain number stands alone."""
    found = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            after = value.get("subnet", value.get("after"))
            before = value.get("dense", value.get("before"))
            found.append((key, _metric(after), f"before {_metric(before)}" if before is not None else ""))
        else:
            found.append((key, _metric(value), ""))
    return found


def report_html(report: Any) -> str:
    """Return headline numbers, the four pictures by layer, and all numbers as tables."""
    facts_ = report.to_dict()
    before, after = _sides(facts_)
    target = facts_.get("target_group_sparsity")
    aim = "" if target is None else f"asked for {percent(target)}"
    sparsity = ("group sparsity", percent(facts_.get("group_sparsity")), aim)
    rows = facts_.get("layers") or []
    picture = figure(report_svg(report), CAPTION)
    return fragment(
        "Report",
        cards([*_metric_cards(facts_.get("metrics") or {}), *headline(before, after), sparsity]),
        picture if rows else "",
        details("Totals", headline_table(before, after)),
        details("How it was measured", facts(_checks(facts_))),
        details(f"All layers ({count(len(rows))})", layers_table(rows)) if rows else "",
        reasons_part(facts_.get("allocation") or {}, facts_.get("predicted_rise")),
        details("Versions", _versions(facts_.get("versions") or {})),
    )


def report_svg(report: Any) -> str:
    """Return channels kept, bit widths, BOPs and bytes by layer, before and after."""
    return layers_picture(report.to_dict().get("layers") or [], label=report_text(report))


def _checks(facts_: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    difference = facts_.get("max_abs_difference")
    kinds = {"native": "the original classes, smaller", "graph": "a graph module: the classes could not be made smaller"}
    kind = facts_.get("module_kind")
    loose = facts_.get("approximate_groups") or 0
    remark = f" (not exact: norms run over {plural(loose, 'group')} that are gone)" if loose else ""
    rounding = facts_.get("rounding") or {}
    kept = [("kept for round_to", _rounding(rounding))] if rounding else []
    return [
        *kept,
        ("masked model against subnet, largest difference", (MISSING if difference is None else f"{float(difference):.3g}") + remark),
        ("kind of module", f"{clean(kind)}: {kinds[kind]}" if kind in kinds else clean(kind)),
        *([("axes of inputs that may have another size", axes)] if (axes := _axes(facts_.get("dynamic_axes"))) else []),
    ]


def _axes(found: Mapping[str, Any] | None) -> str:
    """Return which axes of which inputs are free, of a graph; "" of the model's own classes."""
    return "; ".join(f"{clean(name)}: {', '.join(map(str, axes)) or 'none'}" for name, axes in (found or {}).items())


def _rounding(found: Mapping[str, Any]) -> Prose:
    return Prose(
        f"{plural(int(found['groups']), 'zero group')}, so that channels are multiples of {found['round_to']}: "
        f"{count(found['parameters'])} parameters, {size(found['size_bytes'])}, {percent(found['relative_bops'])} of the BOPs more"
    )


def _versions(versions: Mapping[str, Any]) -> str:
    return table(("package", "version"), [(clean(key), Number(clean(value))) for key, value in versions.items()], label="versions")
