"""Checkpoints: a nested state of tensors and plain values in one safetensors file. Written whole or not at all, never unpickled."""

from __future__ import annotations

import json
import os
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from geta_nb.errors import CheckpointError

FORMAT = "geta-nb checkpoint 1"


def write(path: str | PathLike[str], state: dict[str, Any]) -> None:
    """Write ``state`` (dicts with string or integer keys, lists, tensors, plain values) to ``path``, atomically."""
    target = Path(path)
    tensors: dict[str, Tensor] = {}
    skeleton = _flatten(state, tensors)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"format": FORMAT, "state": json.dumps(skeleton)})
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what :func:`write` wrote.

    Raises:
        CheckpointError: no such file, or not a checkpoint of this version.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError("resume: not a checkpoint of this version.", at=path, expected=FORMAT, got=metadata.get("format"))
            state = _unflatten(json.loads(metadata["state"]), lambda key: file.get_tensor(key))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError("resume: the file cannot be read.", at=path, expected="a file of save_checkpoint", got=str(error)[:200]) from None
    if not isinstance(state, dict):
        raise CheckpointError("resume: the file holds no state.", at=path)
    return state


def restore(model: nn.Module, state: dict[str, Any], groups: int, path: str | PathLike[str]) -> None:
    """Load the model's part of a checkpoint; nothing is changed when it does not fit.

    Raises:
        CheckpointError: names, shapes or the number of groups differ.
    """
    own, saved = model.state_dict(), state["model"]
    differ = sorted(set(own) ^ set(saved)) or [name for name in own if own[name].shape != saved[name].shape]
    if differ or groups != state["groups"]:
        raise CheckpointError(
            "resume: a checkpoint of another model.", at=path, expected=f"{len(own)} tensors and {groups} groups",
            got=f"{len(saved)} tensors and {state['groups']} groups; first difference: {differ[0] if differ else 'groups'}",
        )
    model.load_state_dict(saved)


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_flatten(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise CheckpointError("save_checkpoint: a value that a checkpoint cannot hold.", expected="tensors and plain values", got=type(value).__name__)


def _unflatten(value: Any, tensor: Any) -> Any:
    (kind, content), = value.items()
    if kind == "tensor":
        found: torch.Tensor = tensor(content)
        return found
    if kind == "dict":
        return {key: _unflatten(item, tensor) for key, item in content}
    if kind in {"list", "tuple"}:
        items = [_unflatten(item, tensor) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content
