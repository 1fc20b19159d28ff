"""Views of what may be removed: a group's slices, a family, all groups as a table of families, and what is protected and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from geta_nb.display.markup import MAX_ROWS, Number, Prose, cards, fragment, name, note, table
from geta_nb.display.wording import clean, count, plural, ranges, shorten

_SHOWN_NAMES = 6


def group_text(group: Any) -> str:
    """Return index, family, number of slices and elements."""
    many = f"{plural(len(group.slices), 'slice')}, {plural(group.size, 'element')}"
    return f"Group({count(group.index)}, family {shorten(group.family, 60)!r}, {many})"


def group_html(group: Any) -> str:
    """Return the table of slices."""
    rows = _slice_rows(group)
    head = ("parameter", "axis", "indices", "count", "role")
    title = f"Group {count(group.index)} of family {shorten(group.family, 80)}"
    return fragment(title, table(head, rows, label="slices"), note(_leaves(group)))


def _leaves(group: Any) -> str:
    """How many elements go, and whether that shows."""
    loose = "" if getattr(group, "exact", True) else " A norm runs over them, so that the cut is not exact."
    return f"{plural(group.size, 'element')} leave the network with it.{loose}"


def _slice_rows(group: Any) -> list[tuple[Any, ...]]:
    producing, consuming = set(group.producers), set(group.consumers)
    return [
        (
            name(s.parameter),
            Number(str(s.axis)),
            Prose(ranges(s.indices)),
            Number(count(len(s.indices))),
            _role(s in producing, s in consuming),
        )
        for s in group.slices
    ]


def _role(produces: bool, consumes: bool) -> str:
    return "producer and consumer" if produces and consumes else "producer" if produces else "consumer" if consumes else "follower"


def family_text(family: Any) -> str:
    """Return name, module and number of groups."""
    return f"Family({shorten(family.name, 60)!r}, {plural(len(family.groups), 'group')}, {plural(_elements(family.groups), 'element')})"


def family_html(family: Any) -> str:
    """Return the table of the family's groups."""
    rows = [
        (
            Number(count(g.index)),
            Number(count(g.size)),
            Prose("; ".join(f"{clean(s.parameter)} [{s.axis}] {ranges(s.indices)}" for s in g.slices)),
        )
        for g in family.groups[:MAX_ROWS]  # a wide layer has more than anyone looks at
    ]
    many = len(family.groups)
    title = f"Family {shorten(family.name, 80)}: {plural(many, 'group')}"
    return fragment(title, table(("group", "elements", "slices: parameter [axis] indices"), rows, label="groups", total=many))


def _elements(groups: Iterable[Any]) -> int:
    known = getattr(groups, "elements", None)  # a family of a large network has too many groups to build each
    return sum(int(group.size) for group in groups) if known is None else int(known)


def families_of(groups: Any) -> list[tuple[str, str, Sequence[Any]]]:
    """Return (name, module path, groups) of each family, from ``groups.families`` or from each group's own mark."""
    families = getattr(groups, "families", None)
    if families is not None:
        return [(clean(f.name), clean(f.module_path), f.groups) for f in families]
    members: dict[str, list[Any]] = {}
    for group in groups:
        members.setdefault(clean(group.family), []).append(group)
    return [(family, "", inside) for family, inside in members.items()]


def groups_text(groups: Any) -> str:
    """Return the numbers of groups and families."""
    elements = sum(_family_elements(groups))
    return f"{plural(len(groups), 'group')} in {plural(len(families_of(groups)), 'family')}, {plural(elements, 'element')}"


def _family_elements(groups: Any) -> list[int]:
    """Elements of each family. A network has more groups than anyone wants built one by one, so the table answers where there is one."""
    table = getattr(groups, "table", None)
    if table is None:
        return [_elements(inside) for _, _, inside in families_of(groups)]
    return [int(n) for n in np.bincount(table.family_of, weights=table.group_size, minlength=len(table.family_names))]


def groups_html(groups: Any) -> str:
    """Return the table of families."""
    families, elements = families_of(groups), _family_elements(groups)
    rows = [
        (name(title), name(module), Number(count(len(inside))), Number(count(many)), *_ends(inside))
        for (title, module, inside), many in zip(families, elements, strict=True)
    ]
    head = ("family", "module", "groups", "elements", "producers", "consumers")
    loose = [title for title, _, inside in families if len(inside) and not getattr(inside[0], "exact", True)]
    remark = note(f"Not exact, norms run over them: {', '.join(shorten(title, 60) for title in loose[:_SHOWN_NAMES])}") if loose else ""
    numbers = [
        ("groups", count(len(groups)), "each may be removed alone"),
        ("families", count(len(families)), "groups of one pattern"),
        ("elements", count(sum(elements)), "in all groups"),
    ]
    return fragment("Groups", cards(numbers), table(head, rows, label="families"), remark)


def _ends(groups: Sequence[Any]) -> tuple[Prose, Prose]:
    if not len(groups):
        return Prose(""), Prose("")
    return Prose(_names(s.parameter for s in groups[0].producers)), Prose(_names(s.parameter for s in groups[0].consumers))


def _names(parameters: Iterable[str]) -> str:
    unique = list(dict.fromkeys(shorten(parameter, 60) for parameter in parameters))
    rest = f" and {count(len(unique) - _SHOWN_NAMES)} more" if len(unique) > _SHOWN_NAMES else ""
    return ", ".join(unique[:_SHOWN_NAMES]) + rest


LAYER_NORMS = frozenset({"layer_norm", "native_layer_norm"})
CENTERING = (
    "Where layer norms alone read a residual stream, gt.center(model, example_inputs) before gt.GETA lets its width go, exactly; "
    "else approximate_norms=True does, and says so."
)


def protected_text(protected: Any) -> str:
    """Return how many entries are protected, and the commonest reasons."""
    reasons = Counter(clean(entry.reason) for entry in protected)
    words = "; ".join(f"{shorten(reason, 60)} ({count(many)})" for reason, many in reasons.most_common(3))
    return f"{plural(len(protected), 'protected entry')}" + (f": {words}" if words else "")


def protected_html(protected: Any) -> str:
    """Return the table of what may not be pruned, why, and by which operator."""
    rows = [(name(entry.path), Prose(clean(entry.reason)), name(entry.operator or "")) for entry in protected]
    if not rows:
        return fragment("Protected", note("Nothing is protected."))
    by_norms = any(entry.operator in LAYER_NORMS for entry in protected)
    return fragment(
        f"Protected: {plural(len(rows), 'entry')}",
        note(CENTERING) if by_norms else "",
        table(("parameter or module", "why", "operator"), rows, label="protected"),
    )
