"""The state of a run whose model may be sharded, for ``torch.distributed.checkpoint``: each rank writes what it has, any number reads it.

In: a model, a torch optimizer, and what else a run needs. Out: a nested state of tensors by their names in the model, and plain values as
one text, so that its form does not depend on how far the run is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geta_nb.errors import CheckpointError
from geta_nb.files.checkpoint import flatten, unflatten
from geta_nb.sharding import is_sharded, local

FORMAT = "geta-nb run 1"


def run_state(model: nn.Module, options: Mapping[str, Any], run: tuple[torch.optim.Optimizer, Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return the state of a run.

    Args:
        model: sharded or whole.
        options: plain values that say what the model is.
        run: the torch optimizer, and where its run stands: dicts, lists, tensors and plain values; None: there is none yet.
    """
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    text = json.dumps({"format": FORMAT, "options": flatten(dict(options), {})})
    state = {"model": get_model_state_dict(model), "text": text}
    if run is None:
        return state
    tensors: dict[str, Tensor] = {}
    own = json.dumps(flatten(dict(run[1]), tensors))
    return state | {"optimizer": get_optimizer_state_dict(model, run[0]), "run": {"text": own, "tensors": tensors}}


def read_state(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the options of :func:`run_state`, and where the run stands; None where that is not in it.

    Raises:
        CheckpointError: not such a state.
    """
    try:
        found = json.loads(state["text"])
        options, run = unflatten(found["options"], {}), state.get("run")
        own = None if run is None else unflatten(json.loads(run["text"]), run["tensors"])
        if found["format"] != FORMAT or not isinstance(options, dict) or not isinstance(own, dict | None):
            raise ValueError(f"format {found['format']}")
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError("load_state_dict: not the state of a run.", expected=FORMAT, got=str(error)[:200]) from None
    return options, own


def load_run(model: nn.Module, inner: torch.optim.Optimizer | None, state: Mapping[str, Any]) -> None:
    """Load the model's and the optimizer's part of :func:`run_state`."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    set_model_state_dict(model, dict(state["model"]))
    if inner is not None and "optimizer" in state:
        set_optimizer_state_dict(model, inner, dict(state["optimizer"]))


@torch.no_grad()
def scatter_weights(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor] | None) -> None:
    """Write whole tensors, which rank 0 has, into those of a model, of which each rank may have some rows; one tensor at a time.

    Args:
        tensors: own name -> parameter or buffer; tied ones may come under several names, of which one has to be in ``state``.
        state: of the plain network; on the other ranks it is not looked at.

    Raises:
        CheckpointError: a tensor that is missing, of another shape, or of no such name; on all ranks, and nothing was changed.
    """
    known = {name: id(tensor) for name, tensor in tensors.items()}
    given = {} if state is None else state
    found = {known[name]: value for name, value in given.items() if name in known}
    shapes = {id(tensor): tensor.shape for tensor in tensors.values()}
    wrong = [name for name, key in known.items() if key not in found or found[key].shape != shapes[key]]
    wrong += [name for name in given if name not in known]
    empty = next((name for name, tensor in tensors.items() if tensor.is_meta), None)
    if empty is not None:
        raise CheckpointError("load_weights: the model has no memory yet.", at=empty, got="meta", hint='geta.model.to_empty(device="cpu")')
    first = not dist.is_initialized() or dist.get_rank() == 0
    bad = _agreed(wrong[0] if wrong and first else "")
    if bad:
        raise CheckpointError(
            "load_weights: not a state dict of this network.", at=bad, expected=f"{len(set(known.values()))} tensors by name and shape",
            got=f"{len(given)} tensors" if first else "another rank's",
        )  # fmt: skip
    for tensor in {id(tensor): tensor for tensor in tensors.values()}.values():
        here = local(tensor)
        like = here.new_empty(0)
        whole = found[id(tensor)].to(like) if first else like.new_empty(tensor.shape)
        if not is_sharded(tensor):
            if dist.is_initialized():
                dist.broadcast(whole := whole.contiguous(), 0)
            here.copy_(whole)
        else:
            here.copy_(_shared_out(whole.contiguous(), tensor))


def _shared_out(whole: Tensor, like: Any) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements).to_local()


def _agreed(text: str) -> str:
    """Return rank 0's text on all ranks."""
    found = [text]
    if dist.is_initialized():
        dist.broadcast_object_list(found, 0)
    return found[0]
