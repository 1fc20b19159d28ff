"""Checkpoints: a nested state of tensors and plain values in one safetensors file. Written whole or not at all, never unpickled."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
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
    """Write ``state`` (dicts with string or integer keys, lists, tensors, plain values) to ``path``, whole or not at all.

    Raises:
        CheckpointError: a value that a file cannot hold, or a place where none can be written; what was there stays.
    """
    target = Path(path)
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_flatten(state, tensors))
    metadata = {"format": FORMAT, "state": text, "checksum": _checksum(text, tensors)}
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(handle)
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError("save_checkpoint: the file cannot be written.", at=path, got=str(error)[:200]) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what :func:`write` wrote.

    Raises:
        CheckpointError: no such file, a damaged one, or not a checkpoint of this version.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
        if metadata.get("format") != FORMAT:
            raise CheckpointError("resume: not a checkpoint of this version.", at=path, expected=FORMAT, got=metadata.get("format"))
        if metadata["checksum"] != _checksum(metadata["state"], tensors):
            raise ValueError("its checksum is another")
        state = _unflatten(json.loads(metadata["state"]), tensors)
    except CheckpointError:
        raise
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            "resume: the file cannot be read.", at=path, expected="a file of save_checkpoint", got=str(error)[:200]
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError("resume: the file holds no state.", at=path)
    return state


def restore(model: nn.Module, state: dict[str, Any], groups: int, path: str | PathLike[str]) -> None:
    """Load the model's part of a checkpoint; nothing is changed when it does not fit.

    Raises:
        CheckpointError: names, shapes or the number of groups differ.
    """
    own, saved = model.state_dict(), state["model"]
    shapes, theirs = ({name: getattr(value, "shape", None) for name, value in table.items()} for table in (own, saved))
    differ = [name for name in {**shapes, **theirs} if name not in shapes or name not in theirs or shapes[name] != theirs[name]]
    if differ or groups != state["groups"]:
        raise CheckpointError(
            "resume: a checkpoint of another model.", at=path, expected=f"{len(own)} tensors and {groups} groups",
            got=f"{len(saved)} tensors and {state['groups']} groups; first difference: {differ[0] if differ else 'groups'}",
        )
    model.load_state_dict(saved)


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    total = zlib.crc32(text.encode())
    for key in sorted(tensors):
        total = zlib.crc32(tensors[key].reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_flatten(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise CheckpointError(
        "save_checkpoint: a value that a checkpoint cannot hold.", expected="tensors and plain values", got=type(value).__name__
    )


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unflatten(item, tensors) for key, item in content}
    if kind in {"list", "tuple"}:
        items = [_unflatten(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content
