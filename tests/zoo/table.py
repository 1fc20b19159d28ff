"""Print all laws on all nets of the zoo in all modes, and the table of what is prunable: ``make zoo``.

Comes in: the zoo. Goes out: ``docs/zoo.md`` and an exit status, 1 if a law is broken. Each net's result is kept, so a killed run resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import geta_nb as gt
from geta_nb.bench.jobs import Job, run_jobs, write_json
from tests.zoo import laws
from tests.zoo.catalogue import ZOO

ROOT = Path(__file__).resolve().parents[2]

BEFORE = ROOT / "docs" / "data" / "prunable_before.json"
"""Net -> percent of its parameters that were prunable."""
SHARES = (0.1, 0.3, 0.6, 1.0)
LAWS = ("partition", "exact at 10 %", "exact at 30 %", "exact at 60 %", "exact to the last group", "preview is true", "compressed again",
        "same groups", "any size")  # fmt: skip
HEAD = """# The zoo

Made by `make zoo`; {nets} nets, {held} of {all} laws hold. Every net is tiny and has random weights; nothing in `geta_nb` knows any of
them by name. Laws, in float64 to 1e-9 of the largest output: no index is in two groups; random groups, 10, 30 and 60 % of each family and
all but one, go exactly (masked and cut network agree, other batch sizes and inputs too, and in float32 to 1e-4); `preview` says what the
cut network really has, multiply-accumulates against torch's own counter; the subnet is compressed again; quantized weights, and weights
and activations, change no group and go as exactly; at two other sizes a saved and loaded subnet equals the masked network, or the error
names the input and its axis.

*Prunable*: share of the parameters that lie in some group; before an arrow, in percent, what it was of the same net before widths behind
norms and frozen norms went (code of commit 804a0a9; of a net that is centered, without that). {moved}

*Module*: what `construct_subnet` hands out, the model's own classes (native) or the cut graph. *Takes*: which sizes of its inputs a saved
subnet takes, letters where any will do. *Protected*: number of parameter axes that stay, by reason.

| net | parameters | groups | families | prunable | module | takes | protected, and why |
|---|---:|---:|---:|---:|---|---|---|
"""


def measure(name: str, version: str) -> dict[str, Any]:
    """Return figures of one net, and for each law and mode "" or what broke it."""
    warnings.simplefilter("ignore")
    start = time.process_time()
    found: dict[str, Any] = {"laws": {}, "modules": {}}
    plain: gt.GETA | None = None
    for mode in laws.MODES:
        outcome: dict[str, str] = {}
        geta = _attempt(outcome, "GETA", lambda mode=mode: _geta(name, mode))
        if geta is not None:
            plain = plain or geta
            found["modules"][mode], found["sizes"] = _check(geta, plain, outcome)
        found["laws"][mode] = outcome
    if plain is not None:
        found |= _figures(plain)
    return found | {"seconds": round(time.process_time() - start, 1)}


def _geta(name: str, mode: str) -> gt.GETA:
    model, args, kwargs = ZOO[name].double()
    return laws.geta_of(model, args, kwargs, mode)


def _attempt(outcome: dict[str, str], law: str, check: Callable[[], Any]) -> Any:
    try:
        result = check()
    except Exception as error:  # whatever it is, it stands in the table, by its first line
        outcome[law] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return None
    outcome[law] = ""
    return result


def _check(geta: gt.GETA, plain: gt.GETA, outcome: dict[str, str]) -> tuple[str, str]:
    """Try every law; return the kinds of module that came out, and which sizes a saved one takes."""
    kinds = set()
    _attempt(outcome, LAWS[0], lambda: laws.check_partition(geta))
    for law, share in zip(LAWS[1:5], SHARES, strict=True):
        subnet = _attempt(outcome, law, lambda share=share: laws.check_exact_removal(geta, laws.some_groups(geta, int(10 * share), share)))
        if subnet is not None:
            kinds.add(subnet.geta_info.kind)
            if share == SHARES[1]:
                if geta is plain:  # the counter sees no quantizer's work, and the products are the same
                    _attempt(outcome, LAWS[5], lambda subnet=subnet: laws.check_preview(geta, subnet))
                _attempt(outcome, LAWS[6], lambda subnet=subnet: laws.check_second_compression(geta, subnet))
    if geta is not plain:
        _attempt(outcome, LAWS[7], lambda: _assert(laws.slice_sets(geta) == laws.slice_sets(plain), "other groups than the plain net"))
    with tempfile.TemporaryDirectory() as folder:
        sizes = _attempt(outcome, LAWS[8], lambda: laws.check_any_size(geta, laws.some_groups(geta, 4), Path(folder) / "net"))
    return " and ".join(sorted(kinds)), sizes.words if sizes is not None else ""


def _assert(true: bool, otherwise: str) -> None:
    if not true:
        raise AssertionError(otherwise)


def _figures(geta: gt.GETA) -> dict[str, Any]:
    reasons = Counter(entry.reason.partition(" in ")[0].partition(";")[0] for entry in geta.protected)
    total = sum(p.numel() for p in geta.model.parameters())
    return {
        "parameters": total, "groups": len(geta.groups), "families": len(geta.families), "protected": dict(reasons.most_common()),
        "prunable": prunable_elements(geta) / total,
    }  # fmt: skip


def prunable_elements(geta: gt.GETA) -> int:
    """Parameter elements that lie in at least one group."""
    shapes = {name: tuple(p.shape) for name, p in geta.model.named_parameters()}
    kept = {name: [np.ones(size, dtype=bool) for size in shape] for name, shape in shapes.items()}
    for entry in geta.groups.table.axis_maps:
        if entry.parameter in kept:
            kept[entry.parameter][entry.axis] &= entry.group_of_index < 0
    stay = {name: int(np.prod([axis.sum() for axis in axes], dtype=np.int64)) for name, axes in kept.items()}
    return sum(int(np.prod(shapes[name], dtype=np.int64)) - stay[name] for name in shapes)


def _share(net: str, share: float, before: Mapping[str, int]) -> str:
    """The prunable share in percent, and what it was where it was another."""
    now = round(100 * share)
    return f"{now}%" if before.get(net, now) == now else f"{before[net]} → {now}%"


def _moved(results: Mapping[str, Mapping[str, Any]], before: Mapping[str, int]) -> str:
    """How the share moved over all nets of which it is known."""
    pairs = [(before[net], round(100 * r["prunable"])) for net, r in results.items() if net in before and "prunable" in r]
    up, down = (sum(sign * (now - then) > 0 for then, now in pairs) for sign in (1, -1))
    means = [sum(pair[at] for pair in pairs) / max(len(pairs), 1) for at in (0, 1)]
    return f"It rose in {up} of {len(pairs)} nets and fell in {down}; mean over nets {means[0]:.0f} → {means[1]:.0f}%."


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table as Markdown, broken laws first."""
    every = [(net, mode, law, text) for net, r in results.items() for mode, o in r["laws"].items() for law, text in o.items()]
    broken = [row for row in every if row[3]]
    before, lines = json.loads(BEFORE.read_text()), []
    for net, r in results.items():
        if "groups" in r:
            why = "; ".join(f"{reason} ({count})" for reason, count in r["protected"].items())
            module = ", ".join(sorted({kind for kind in r["modules"].values() if kind})) or "-"
            figures = f"{r['parameters']:,} | {r['groups']} | {r['families']} | {_share(net, r['prunable'], before)}"
            lines.append(f"| {net} | {figures} | {module} | {r['sizes']} | {why} |")
    text = HEAD.format(nets=len(results), held=len(every) - len(broken), all=len(every), moved=_moved(results, before))
    text += "\n".join(lines) + "\n"
    if broken:
        text += "\n## Broken\n\n" + "\n".join(f"- {net}, {mode}, {law}: {what}" for net, mode, law, what in broken) + "\n"
    return text


def main() -> int:
    """Run what is not kept yet, write the page, and say what is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "zoo", help="folder of the kept results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "zoo.md")
    parser.add_argument("--only", nargs="*", default=None, help="names of nets; the page is not written then")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    names = options.only or list(ZOO)
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    version = hashlib.sha256(sources).hexdigest()[:16]
    jobs = {name: Job(measure, {"name": name, "version": version}) for name in names}
    results = run_jobs(jobs, options.output, workers=options.workers, title="zoo")
    text = page(results)
    if options.only is None:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(text)
        write_json(options.output / "zoo.json", results)
    sys.stdout.write(text)
    return int("## Broken" in text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
