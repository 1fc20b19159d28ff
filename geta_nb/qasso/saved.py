"""What of a run is saved beside the inner optimizer's state. In: an optimizer, or a state. Out: the other, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from geta_nb.errors import CheckpointError
from geta_nb.files import first_difference
from geta_nb.qasso.allocation import Allocation

FORMAT = 4
"""Version of the ``"qasso"`` part of a state dict."""


def own_part(state_dict: Any) -> dict[str, Any]:
    """Return the ``"qasso"`` part of a state dict.

    Raises:
        CheckpointError: there is none.
    """
    own = state_dict.get("qasso") if isinstance(state_dict, Mapping) else None
    if not isinstance(own, dict):
        raise _foreign("none")
    return own


def identity(optimizer: Any) -> dict[str, Any]:
    """Return what must be the same in the run that loads a state: plain values."""
    sizes = torch.bincount(optimizer.pruner.members.family_of.cpu(), minlength=len(optimizer.family_names)).tolist()
    return {
        "optimizer": type(optimizer.inner).__name__,
        "groups": [[name, size] for name, size in zip(optimizer.family_names, sizes, strict=True)],
        "quantizers": [list(key) for key in optimizer.bank.keys],
        "budget": optimizer.budget.to_dict(),
        "schedule": optimizer.schedule.to_dict(),
        "rules": asdict(optimizer.rules),
    }


def check_own(own: Mapping[str, Any], optimizer: Any) -> None:
    """Check whose state this is.

    Args:
        own: the ``"qasso"`` part of a state dict.
        optimizer: that is to load it.

    Raises:
        CheckpointError: a state of another optimizer, model, budget or schedule, or a damaged plan.
    """
    if own.get("format") != FORMAT:
        raise _foreign(f"format {own.get('format')}")
    plan = own["joint"].get("plan") if isinstance(own.get("joint"), Mapping) else None
    if plan is not None:
        Allocation.from_dict(plan)
    for name, mine in identity(optimizer).items():
        difference = first_difference(name, mine, own.get(name))
        if difference is not None:
            at, expected, got = difference
            raise CheckpointError("QASSO.load_state_dict: saved by another run.", at=at, expected=expected, got=got)


def _foreign(got: str) -> CheckpointError:
    what = "QASSO.load_state_dict: not a state of this optimizer."
    return CheckpointError(what, expected=f"a 'qasso' part, format {FORMAT}", got=got)


def own_state(optimizer: Any) -> dict[str, Any]:
    """Return where a run stands. Plain tensors and values."""
    bank = optimizer.bank
    return {
        "format": FORMAT,
        "step": optimizer.steps_done,
        **identity(optimizer),
        "lower_bits": list(bank.lower),
        "frozen_bits": None if bank.frozen is None else list(bank.frozen),
        "histograms": bank.counted(),
        **optimizer.pruner.state_dict(),
    }


def load_own(optimizer: Any, own: Mapping[str, Any]) -> None:
    """Restore :func:`own_state`, which was checked."""
    bank = optimizer.bank
    optimizer.steps_done = int(own["step"])
    bank.lower = [int(b) for b in own["lower_bits"]]
    bank.frozen = None if own["frozen_bits"] is None else [int(b) for b in own["frozen_bits"]]
    bank.load_counted(own["histograms"])
    optimizer.pruner.load_state_dict(own)
