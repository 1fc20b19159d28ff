"""Where a run stands, as plain JSON-able values: what live views, logs and callbacks show. In: an optimizer. Out: a dictionary.

Keys: ``step`` (steps done), ``stage``, ``bits`` and ``activation_bits`` (layer -> bits), ``bit_bound`` (the upper bound of the budget's
range reached so far), ``kept`` (family -> share of its groups that live), ``zero_groups``, ``fading_groups`` (redundant, not yet zero),
``n_groups``, ``plan`` (how a cost target is split between bits and groups, and why: an ``Allocation`` as a dictionary; None where there is
none), ``target`` (what the budget asks for).
"""

from __future__ import annotations

from typing import Any


def snapshot(optimizer: Any) -> dict[str, Any]:
    """Return where the run of a ``QASSO`` stands; waits for the device."""
    alive, budget, limits = optimizer.group_mask, optimizer.budget, optimizer.pruner.limits
    target = {budget.target[0]: budget.target[1]} if budget.target else None
    return {
        "step": optimizer.steps_done,
        "stage": optimizer.stage,
        "bits": optimizer.bit_widths(),
        "activation_bits": optimizer.activation_bit_widths(),
        "bit_bound": optimizer.schedule.upper_bound(optimizer.steps_done, budget.bit_range),
        "kept": dict(zip(optimizer.family_names, limits.kept_shares(alive).tolist(), strict=True)),
        "zero_groups": int((~alive).sum()),
        "fading_groups": int(optimizer.pruner.redundant.sum()),
        "n_groups": len(alive),
        "plan": None if optimizer.plan is None else optimizer.plan.to_dict(),
        "target": target or {"group_sparsity": budget.group_sparsity, "zero_groups": optimizer.n_redundant},
    }
