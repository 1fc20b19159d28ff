"""Why torch's exporter cannot see through a model, in words that help with that reason and no other. Used by ``trace``.

In: the model, its inputs, and what the exporter said. Out: a :class:`TraceError` with the line of the user's code, and a hint. What none
of the reasons fits gets torch's words, and no guess at what to change.
"""

from __future__ import annotations

import importlib
import inspect
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from geta_nb.errors import TraceError
from geta_nb.graph.quiet import quiet

_TORCH = str(Path(torch.__file__).parent)
_FORKS = re.compile(r"(el)?if |while |assert |.* if .* else ")


class _Reason(NamedTuple):
    """What a reason is told by, in the exporter's words or the names of types, and what is said of it."""

    told_by: re.Pattern[str]
    expected: str
    hint: str


_PACKED = _Reason(
    re.compile(r"\bpack_padded_sequence\b|\bpad_packed_sequence\b|\bpack_sequence\b|\bPackedSequence\b"),
    "padded sequences: the lengths of a packed one are values of a tensor, and its sizes follow them",
    "give the recurrent layer the padded batch, without pack_padded_sequence, and mask its output: out * mask.unsqueeze(-1)",
)
_CACHE = _Reason(
    re.compile(r"(?:class '[\w.]*\.|Variable\(|\binput )(\w*Cache)\b"),
    "inputs of tensors, tuples, lists and dicts; a cache is an object that the forward writes into",
    "no past_key_values among the example inputs; a cache that the forward makes itself may stay",
)
_OBJECT = _Reason(
    re.compile(r"unrecognized type UserDefinedObjectVariable\((\w+)\)|Found <class '[\w.]*?(\w+)'> in output, which is not a known type"),
    "outputs of tensors, tuples, lists, dicts and dataclasses, or objects whose attributes hold the tensors",
    "return a tuple, a dict or a dataclass in place of {name}",
)
_DATA = _Reason(
    re.compile(r"fake tensor in the exported program constant's list"),
    "a forward that reads and writes tensors in sight of autograd and the exporter, which .data is not",
    "tensor.detach() in place of tensor.data; a buffer is written with self.buffer.copy_(value)",
)
_CONSTANT = _Reason(
    re.compile(r"Constant [\w.]+ is mutated in the forward"),
    "tensors that the forward writes into are buffers",
    'self.register_buffer("name", tensor) in place of self.name = tensor',
)
_NUMPY = _Reason(
    re.compile(r"\.numpy\(\) is not supported|Converting a tensor to a NumPy"),
    "a forward of torch's operators alone",
    "the torch function in place of numpy's (torch.sort for np.sort), or that part moved out of the model",
)
_GRADIENT = _Reason(
    re.compile(r"torch\.autograd\.grad|\.backward\(\)|Tensor\.backward"),
    "a forward that takes no gradients of its own",
    "move torch.autograd.grad out of the model, and give GETA the network that it takes the gradient of",
)
_FORK = _Reason(
    re.compile(r"Data-dependent branching"),
    "a forward whose control flow does not depend on the values of tensors",
    "replace `if x.sum() > 0:` by torch.where(...), or move that part out of the model",
)
_NUMBER = _Reason(
    re.compile(r"[Dd]ata-dependent|DataDependent"),
    "a forward in which no size and no number is made of the values of tensors",
    "keep it a tensor (x.mean() for float(x.mean()), x[index] for a loop over index.tolist()), or move that part out of the model",
)
_OTHER = _Reason(
    re.compile(""),
    "a forward that torch.export can trace",
    "move what stands there out of the model, or give GETA the part of the model without it",
)
_SURE = (_PACKED, _CACHE, _OBJECT, _CONSTANT)
_TOLD = (*_SURE, _NUMPY, _GRADIENT, _FORK, _NUMBER)
"""Reasons that the exporter's first words tell from all others."""
_REASONS = (*_SURE, _NUMPY, _GRADIENT, _FORK, _NUMBER, _DATA, _OTHER)


def explained(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception, seconds: float = 5.0) -> TraceError:
    """Return what stopped the exporter in our form.

    Where its words are not enough, its strict mode is asked, which sees the code of the forward and explains better.

    Args:
        model, args, kwargs: what could not be traced.
        error: what the exporter raised.
        seconds: how long strict mode may take; it takes several times what the exporter takes else.
    """
    errors = [error]
    inputs = " ".join(f"input {name}" for name in _object_names((args, kwargs)))
    first = _reason(inputs, errors)
    told = first in _SURE or (first in _TOLD and _place(errors)[0])
    if not told and (strict := _strict_error(model, args, kwargs, seconds)) is not None:
        errors.append(strict)
    reason = _reason(inputs, errors)
    if reason is _DATA and len(errors) > 1:
        reason = _OTHER  # strict mode sees past .data: what it names is something else
    line, code = _place(errors)
    if reason is _NUMBER and _FORKS.match(code):
        reason = _FORK
    if reason is _DATA:
        line = line or _data_line(model)
    said = next((item for item in reversed(errors) if reason.told_by.search(_words(item))), errors[-1])
    return TraceError(
        "GETA: torch.export cannot see through the model.", at=line or type(model).__name__, expected=reason.expected,
        got=f"{type(said).__name__}: {first_line(said)}", hint=_hint(reason, said),
    )


def _hint(reason: _Reason, said: Exception) -> str:
    """Return the hint of a reason, with the name of the class that it is about."""
    found = reason.told_by.search(_words(said)) if reason is _OBJECT else None
    return reason.hint.format(name=next((name for name in found.groups() if name), "Name")) if found else reason.hint


def first_line(error: BaseException) -> str:
    """Return the first line of a message that is not empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]


def _reason(inputs: str, errors: list[Exception]) -> _Reason:
    text = "\n".join([inputs, *map(_words, errors)])
    return next(reason for reason in _REASONS if reason.told_by.search(text))


def _words(error: BaseException | None) -> str:
    """Return types and messages of an error and of those that it came from."""
    words: list[str] = []
    while error is not None and len(words) < 20:
        words.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(words)


def depends_on_sizes(error: Exception) -> bool:
    """Whether an error may go where no size is free; one that is about the values of tensors, or about classes, does not."""
    text = _words(error)
    reason = next(reason for reason in _REASONS if reason.told_by.search(text))
    if reason in (_FORK, _NUMBER):
        return re.search(r"\b(u|zuf)\d+\b", text) is None or re.search(r"\bs\d+\b", text) is not None
    return reason not in (*_SURE, _NUMPY, _GRADIENT)


class _Late(Exception):
    """Strict mode has taken its time."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Stop torch's reading of a forward's code after so long."""
    reader: Any = importlib.import_module("torch._dynamo.symbolic_convert").InstructionTranslatorBase  # seconds to import
    step, end = reader.step, time.monotonic() + seconds

    def timed(self: Any) -> Any:
        if time.monotonic() > end:
            raise _Late
        return step(self)

    reader.step = timed
    try:
        yield
    finally:
        reader.step = step


def _strict_error(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], seconds: float) -> Exception | None:
    try:
        with quiet(), _limited(seconds):
            torch.export.export(model, args, kwargs, strict=True)
    except Exception as error:
        if _Late.__name__ in _words(error):
            return None
        raised = "Observed exception" in first_line(error)  # by the forward itself: the first error has its words
        return None if raised or _reason("", [error]) is _OBJECT else error  # objects are opened where it counts
    return None


def _object_names(inputs: Any) -> list[str]:
    """Names of the types of inputs that are no tensors and no plain containers."""
    leaves = pytree.tree_leaves(inputs, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))
    return [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, (torch.Tensor, int, float, str, type(None)))]


def _place(errors: list[Exception]) -> tuple[str, str]:
    """Return the innermost line outside torch that an error names, the last error's first, and its code."""
    for error in reversed(errors):
        named = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n?\s*(.*)', str(error))
        frames = [(item.filename, str(item.lineno), item.name, item.line or "") for item in traceback.extract_tb(error.__traceback__)]
        for path, line, scope, code in (*reversed(named), *reversed(frames)):
            if not _is_ours(path):
                return f"{path.rsplit('/', 1)[-1]}:{line} in {scope}", code.strip()
    return "", ""


def _data_line(model: nn.Module) -> str:
    """Return the first line of a forward that says ``.data``, or nothing: the exporter names no line for it."""
    kinds: dict[Any, None] = dict.fromkeys(map(type, model.modules()))
    for kind in kinds:
        try:
            path, (lines, start) = inspect.getfile(kind), inspect.getsourcelines(kind.forward)
        except (OSError, TypeError):
            continue  # no file: a class of a notebook's cell that went, or of a compiled module
        found = next((number for number, line in enumerate(lines, start) if re.search(r"\.data\b", line)), None)
        if found is not None and not _is_ours(path):
            return f"{Path(path).name}:{found} in forward"
    return ""


def _is_ours(path: str) -> bool:
    """Whether a file is torch's, this package's, or none at all."""
    return path.startswith(("<", _TORCH, str(Path(__file__).parents[1])))
