"""Outputs without their class: a dict with attribute access, and the structure of inputs and outputs as plain JSON.

Comes in: the pytree structures that ``torch.export`` puts on a graph. Goes out: JSON, and structures again that need no class but
:class:`Record`. Part of stage 1; :mod:`geta_nb.graph.program` uses it.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections import OrderedDict, namedtuple
from collections.abc import Iterable
from typing import Any

import torch.utils._pytree as pytree

from geta_nb.errors import ArtifactError

_PLAIN: dict[type, str] = {tuple: "tuple", list: "list", dict: "dict", OrderedDict: "odict"}
_TYPES = {name: kind for kind, name in _PLAIN.items()}
_DEEPEST = 32


class Record(dict[str, Any]):
    """Named outputs of a loaded network: ``out["logits"]``, ``out.logits`` and ``out[0]`` are the same.

    Stands in for the output class of the network that was saved (a dataclass, a ``transformers`` ModelOutput), which the file does
    not need. A position counts the values that are not None.

    >>> out = Record(logits=3, past=None)
    >>> out.logits, out[0], out.past
    (3, 3, None)
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int | slice):
            return self.to_tuple()[key]
        return super().__getitem__(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, (dict(self),)

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are not None, in order."""
        return tuple(value for value in self.values() if value is not None)


def _flatten(record: Record) -> tuple[list[Any], list[list[str]]]:
    names = [name for name, value in record.items() if value is not None]
    return [dict.__getitem__(record, name) for name in names], [names, [name for name in record if name not in names]]


def _flatten_with_keys(record: Record) -> tuple[list[tuple[Any, Any]], Any]:
    values, context = _flatten(record)
    return [(pytree.MappingKey(name), value) for name, value in zip(context[0], values, strict=True)], context


def _unflatten(values: Iterable[Any], context: Any) -> Record:
    names, absent = context
    return Record(dict(zip(names, values, strict=True)) | dict.fromkeys(absent))


pytree.register_pytree_node(
    Record, _flatten, _unflatten, serialized_type_name="geta_nb.graph.records.Record", flatten_with_keys_fn=_flatten_with_keys
)


def encode_spec(spec: pytree.TreeSpec, *, outputs: bool) -> Any:
    """Return a pytree structure as JSON.

    Args:
        spec: the structure; a leaf, tuples, lists and dicts, and for outputs any class whose fields have names.
        outputs: whether classes may become a :class:`Record`; inputs must arrive in their own class, so there they may not.

    Returns:
        ``"*"`` for a leaf, else ``[kind, keys, children]``; a record's keys are ``[names, names that are None]``.

    Raises:
        ArtifactError: a class that a file cannot carry.
    """
    if spec.is_leaf():
        return "*"
    children = [encode_spec(child, outputs=outputs) for child in spec.children()]
    kind: Any = spec.type
    if kind in _PLAIN:
        keys = list(spec.context) if issubclass(kind, dict) else None
        if keys is None or all(type(key) in (str, int) for key in keys):
            return [_PLAIN[kind], keys, children]
    elif outputs and (not isinstance(kind, type) or issubclass(kind, tuple)):
        return ["tuple", None, children]  # torch's type of a named tuple's structure is the function namedtuple
    elif outputs and (names := _field_names(spec)) is not None:
        return ["record", names, children]
    raise ArtifactError(
        f"save: a network {'output' if outputs else 'input'} is of a class that a file cannot carry.",
        expected="tensors in tuples, lists and dicts with plain keys" + (", or a class with named fields" if outputs else ""),
        got=spec.context if kind is namedtuple else f"{kind.__module__}.{kind.__qualname__}",
        hint="trace the model with use_cache=False, or wrap it so that it takes and returns tensors",
    )


def _field_names(spec: pytree.TreeSpec) -> list[list[str]] | None:
    """Return [names, names that are None] of a class that flattens by field name, or None for another class."""
    context: Any = spec.context
    if _are_names(context, spec.num_children):
        fields = [field.name for field in dataclasses.fields(spec.type)] if dataclasses.is_dataclass(spec.type) else []
        return [list(context), [name for name in fields if name not in context]]
    if isinstance(context, list | tuple) and len(context) == 2 and _are_names(context[0], spec.num_children) and _are_names(context[1]):
        return [list(context[0]), list(context[1])]
    return None


def _are_names(names: object, count: int | None = None) -> bool:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return False
    return len(set(names)) == len(names) and count in (None, len(names))


def decode_spec(data: Any, depth: int = 0) -> pytree.TreeSpec:
    """Return the pytree structure of :func:`encode_spec`'s JSON.

    Raises:
        ArtifactError: the JSON is not of that form.
    """
    if data == "*":
        return pytree.treespec_leaf()
    if depth < _DEEPEST and isinstance(data, list) and len(data) == 3 and isinstance(data[2], list):
        kind, keys, children = data[0], data[1], [decode_spec(child, depth + 1) for child in data[2]]
        if kind in ("tuple", "list") and keys is None:
            return pytree.TreeSpec(_TYPES[kind], None, children)
        if kind in ("dict", "odict") and _are_keys(keys, len(children)):
            return pytree.TreeSpec(_TYPES[kind], keys, children)
        if kind == "record" and isinstance(keys, list) and len(keys) == 2 and _are_names(keys[0], len(children)) and _are_names(keys[1]):
            return pytree.TreeSpec(Record, keys, children)
    raise ArtifactError("load: the structure of inputs or outputs is malformed.", got=reprlib.repr(data))


def _are_keys(keys: object, count: int) -> bool:
    return isinstance(keys, list) and all(type(key) in (str, int) for key in keys) and len(set(keys)) == len(keys) == count
