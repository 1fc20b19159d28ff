"""Checkpoints: a nested state of tensors and plain values in one safetensors file. Written whole or not at all, never unpickled."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import tempfile
import time
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from geta_nb.errors import CheckpointError, ConfigError

FORMAT = "geta-nb checkpoint 2"
STALE = 600.0
"""Seconds after which nobody is writing a part file any more: its process was killed."""


def write(path: str | PathLike[str], state: dict[str, Any]) -> None:
    """Write ``state`` (dicts with string or integer keys, lists, tensors, plain values) to ``path``, whole or not at all.

    Raises:
        CheckpointError: a value that a file cannot hold, or a place where none can be written; what was there stays.
    """
    target = Path(path)
    tensors: dict[str, Tensor] = {}
    text = json.dumps(flatten(state, tensors))
    metadata = {"format": FORMAT, "state": text, "checksum": _checksum(text, tensors)}
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        os.close(handle)
        save_file(tensors, temporary, metadata=metadata)
        _flush(temporary)
        os.replace(temporary, target)
        _sweep(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError("save_checkpoint: the file cannot be written.", at=path, got=str(error)[:200]) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _flush(path: str) -> None:
    """Wait until a file is on the disk: renamed before that, it could be an empty one after a power cut."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sweep(target: Path) -> None:
    """Remove what processes that were killed while writing left behind."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what :func:`write` wrote.

    Raises:
        CheckpointError: no such file, a damaged one, or not a checkpoint of this version.
    """
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            # clones: the tensors of an open file are the file, and would go with it when it is overwritten in place
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - it is no mapping
        if metadata.get("format") != FORMAT:
            raise CheckpointError("resume: not a checkpoint of this version.", at=path, expected=FORMAT, got=metadata.get("format"))
        if metadata["checksum"] != _checksum(metadata["state"], tensors):
            raise ValueError("its checksum is another")
        state = unflatten(json.loads(metadata["state"]), tensors)
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
    own, saved = model.state_dict(), dict(state["model"])
    # checkpoints from before there were unsigned quantizers say nothing of a sign
    signs = [name for name in own.keys() - saved.keys() if name.endswith("input_quantizer.has_sign")]
    saved.update({name: torch.tensor(True, device="cpu") for name in signs})
    shapes, theirs = ({name: getattr(value, "shape", None) for name, value in table.items()} for table in (own, saved))
    differ = [name for name in {**shapes, **theirs} if name not in shapes or name not in theirs or shapes[name] != theirs[name]]
    if differ or groups != state["groups"]:
        raise CheckpointError(
            "resume: a checkpoint of another model.", at=path, expected=f"{len(own)} tensors and {groups} groups",
            got=f"{len(saved)} tensors and {state['groups']} groups; first difference: {differ[0] if differ else 'groups'}",
        )
    model.load_state_dict(saved)


def state_of(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint holds of things that users train with: their state where they have one, else the plain value itself."""
    return {name: _state(value) for name, value in extra.items()}


def _state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.state_dict() if hasattr(value, "state_dict") else value


def load_into(objects: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Give each object the state that was saved under its name.

    Raises:
        CheckpointError: a name under which nothing was saved; no object was touched.
        ConfigError: a thing that has no state to load.
    """
    for name, value in objects.items():
        if name not in saved:
            raise CheckpointError(
                "restore: nothing was saved under this name.", at=name, expected=f"one of {', '.join(saved) or '(none)'}", got=name,
                hint=f"geta.save_checkpoint(path, {name}={name})",
            )  # fmt: skip
        if not isinstance(value, torch.Generator) and not hasattr(value, "load_state_dict"):
            raise ConfigError(
                "restore: this has no state to load.", at=name, expected="a scheduler, scaler, generator, ... with load_state_dict",
                got=type(value).__name__, hint=f'values = geta.restore(); values["{name}"]',
            )  # fmt: skip
    for name, value in objects.items():
        if isinstance(value, torch.Generator):
            value.set_state(saved[name])
        else:
            value.load_state_dict(saved[name])


def first_difference(name: str, mine: Any, theirs: Any) -> tuple[str, Any, Any] | None:
    """Return where two plain values first differ, with both values there; None when they are the same. Lists and tuples are the same.

    >>> first_difference("a", {"b": (1, 2), "c": 3}, {"b": [1, 4], "c": 3})
    ('a.b[1]', 2, 4)
    """
    if isinstance(mine, dict) and isinstance(theirs, dict):
        pairs = [(f"{name}.{key}", mine.get(key), theirs.get(key)) for key in {**mine, **theirs}]
    elif isinstance(mine, (list, tuple)) and isinstance(theirs, (list, tuple)):
        if len(mine) != len(theirs):
            return name, f"{len(mine)} entries", f"{len(theirs)} entries"
        pairs = [(f"{name}[{i}]", a, b) for i, (a, b) in enumerate(zip(mine, theirs, strict=True))]
    else:
        return None if mine == theirs else (name, mine, theirs)
    return next((found for pair in pairs if (found := first_difference(*pair)) is not None), None)


def check_qasso_part(
    own: Mapping[str, Any], groups: int, quantizers: int, counted: Mapping[str, Tensor], joint: Mapping[str, Any] | None
) -> None:
    """Check that the ``"qasso"`` part of an optimizer's state is whole, before anything is loaded from it.

    Args:
        own: that part.
        groups, quantizers: how many there are.
        counted: what ``own["histograms"]`` has to look like.
        joint: what ``own["joint"]`` has to look like.

    Raises:
        CheckpointError: an entry is missing or of another kind or length; names it.
    """
    for name in ("alive", "redundant", "average"):
        value = own.get(name)
        if not isinstance(value, Tensor) or value.shape != (groups,):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:80]
            raise _damaged(name, f"a tensor of {groups} groups", got)
    if not _is_count(own.get("step")):
        raise _damaged("step", "a whole number >= 0", repr(own.get("step"))[:80])
    for name in ("lower_bits", "frozen_bits"):
        value = own.get(name, ())
        if name == "frozen_bits" and value is None:
            continue
        if not isinstance(value, (list, tuple)) or len(value) != quantizers or not all(map(_is_count, value)) or name not in own:
            raise _damaged(name, f"{quantizers} bit widths", repr(value)[:80])
    found = own.get("histograms")
    wanted = {name: tuple(tensor.shape) for name, tensor in counted.items()}
    entries = found.items() if isinstance(found, dict) else ((None, None),)
    shapes = {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in entries}
    if shapes != wanted:
        raise _damaged("histograms", f"tensors of shapes {wanted}", repr(shapes)[:80])
    _check_joint(own.get("joint"), joint)


def _check_joint(found: object, wanted: Mapping[str, Any] | None) -> None:
    """Check what a joint allocation keeps; what its plan says is checked where it is read."""
    if wanted is None or not isinstance(found, dict):
        if wanted is not None or found is not None:
            raise _damaged("joint", "none" if wanted is None else "the state of a joint allocation", repr(found)[:80])
        return
    rises, bounds, gone, samples = (found.get(name) for name in ("rises", "bound_bits", "gone", "samples"))
    if not isinstance(rises, Tensor) or rises.shape != wanted["rises"].shape:
        raise _damaged("joint.rises", f"a tensor of {len(wanted['rises'])} quantizers", repr(rises)[:80])
    if not isinstance(bounds, (list, tuple)) or len(bounds) != len(wanted["bound_bits"]) or not all(map(_is_count, bounds)):
        raise _damaged("joint.bound_bits", f"{len(wanted['bound_bits'])} bit widths", repr(bounds)[:80])
    if not isinstance(gone, dict) or gone.keys() != wanted["gone"].keys() or not all(isinstance(rise, float) for rise in gone.values()):
        raise _damaged("joint.gone", "a rise for each family", repr(gone)[:80])
    if samples is not None and not _is_count(samples):
        raise _damaged("joint.samples", "a whole number or none", repr(samples)[:80])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _damaged(name: str, expected: str, got: str) -> CheckpointError:
    return CheckpointError(
        "QASSO.load_state_dict: a damaged state.", at=f"qasso.{name}", expected=expected, got=got, hint="the state_dict() as it was saved"
    )


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    total = zlib.crc32(text.encode())
    for key in sorted(tensors):
        total = zlib.crc32(tensors[key].reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON can write it, with its tensors in ``tensors``, copied, under numbers."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [flatten(item, tensors) for item in value]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise CheckpointError(
        "save_checkpoint: a value that a checkpoint cannot hold.", expected="tensors and plain values", got=type(value).__name__
    )


def unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return what :func:`flatten` was given."""
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unflatten(item, tensors) for key, item in content}
    if kind in {"list", "tuple"}:
        items = [unflatten(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content
