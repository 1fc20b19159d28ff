"""The state of a run whose model may be sharded, for ``torch.distributed.checkpoint``: each rank writes what it has, any number reads it.

In: a model, a torch optimizer, and what else a run needs. Out: a nested state of tensors by their names in the model, and plain values as
one text, so that its form does not depend on how far the run is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.errors import CheckpointError
from geta_nb.files.checkpoint import flatten, unflatten

FORMAT = "geta-nb run 1"


def run_state(model: nn.Module, inner: torch.optim.Optimizer | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a run.

    Args:
        model: sharded or whole.
        inner: the torch optimizer; None: there is none yet.
        own: dicts, lists, tensors and plain values.
    """
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    tensors: dict[str, Tensor] = {}
    text = json.dumps({"format": FORMAT, "own": flatten(dict(own), tensors)})
    state = {"model": get_model_state_dict(model), "text": text, "tensors": tensors}
    return state if inner is None else state | {"optimizer": get_optimizer_state_dict(model, inner)}


def read_own(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`run_state` got as ``own``.

    Raises:
        CheckpointError: not such a state.
    """
    try:
        found = json.loads(state["text"])
        own = unflatten(found["own"], state["tensors"])
        if found["format"] != FORMAT or not isinstance(own, dict):
            raise ValueError(f"format {found['format']}")
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError("load_state_dict: not the state of a run.", expected=FORMAT, got=str(error)[:200]) from None
    return own


def load_run(model: nn.Module, inner: torch.optim.Optimizer | None, state: Mapping[str, Any]) -> None:
    """Load the model's and the optimizer's part of :func:`run_state`."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    set_model_state_dict(model, dict(state["model"]))
    if inner is not None and "optimizer" in state:
        set_optimizer_state_dict(model, inner, dict(state["optimizer"]))
