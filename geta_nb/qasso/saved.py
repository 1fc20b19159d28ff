"""Whether a saved state is one of this optimizer and this run. In: a state dict. Out: our own part of it, or an error that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geta_nb.errors import CheckpointError
from geta_nb.files import first_difference
from geta_nb.qasso.allocation import Allocation

FORMAT = 4
"""Version of the ``"qasso"`` part of a state dict."""


def own_part(state_dict: Any, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``"qasso"`` part of a state dict.

    Args:
        state_dict: of an optimizer.
        identity: what must be the same in the run that loads it.

    Raises:
        CheckpointError: a state of another optimizer, model, budget or schedule, or a damaged plan.
    """
    own = state_dict.get("qasso") if isinstance(state_dict, Mapping) else None
    if not isinstance(own, dict) or own.get("format") != FORMAT:
        raise CheckpointError(
            "QASSO.load_state_dict: not a state of this optimizer.",
            expected=f"a 'qasso' part, format {FORMAT}",
            got="none" if not isinstance(own, dict) else f"format {own.get('format')}",
        )
    plan = own["joint"].get("plan") if isinstance(own.get("joint"), Mapping) else None
    if plan is not None:
        Allocation.from_dict(plan)
    for name, mine in identity.items():
        difference = first_difference(name, mine, own.get(name))
        if difference is not None:
            at, expected, got = difference
            raise CheckpointError("QASSO.load_state_dict: saved by another run.", at=at, expected=expected, got=got)
    return own
