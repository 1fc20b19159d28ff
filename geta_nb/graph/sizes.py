"""Which sizes of its inputs a graph works for: what torch found out while it traced, as plain data that a file can carry.

In: an exported program. Out: an :class:`InputSizes`: each axis a number, a free size (``n0``) or arithmetic of free sizes, and what must
hold between them. Whoever runs the graph checks its inputs with it, so that no graph meets a size that it was not made for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree
from torch.utils._sympy.printers import PythonPrinter

from geta_nb.errors import ArtifactError, InputError
from geta_nb.graph.expressions import names_in, value_of

Axis = int | str
Constant = bool | int | float | str | None
_LARGEST = 1 << 20
_WORD = re.compile(r"n\d+")


@dataclass(frozen=True)
class InputSize:
    """One input of a graph.

    Attributes:
        name: of the input; a part of a nested one has its place in it.
        axes: of a tensor: a number, or an expression of free sizes (``n0``), for each axis; None: no tensor.
        value: of what is no tensor: the only value that the graph is for.
        dtype: of a tensor, as torch names it; "" where nobody knows.
    """

    name: str
    axes: tuple[Axis, ...] | None
    value: Constant = None
    dtype: str = ""


@dataclass(frozen=True)
class InputSizes:
    """The inputs of a graph, in their flattened order, and what must hold between their sizes.

    Attributes:
        inputs: one entry for each.
        conditions: expressions of free sizes that must be true.
        example: (free size, its number in the example) of each.
    """

    inputs: tuple[InputSize, ...]
    conditions: tuple[str, ...] = ()
    example: tuple[tuple[str, int], ...] = ()

    @property
    def bound(self) -> tuple[tuple[str, int, int], ...]:
        """(input, axis, size) of each axis with one size alone."""
        return tuple((item.name, axis, size) for item in self.inputs for axis, size in enumerate(item.axes or ()) if isinstance(size, int))

    @property
    def dynamic_axes(self) -> dict[str, list[int]]:
        """Input -> its axes that need not be of the example's size; what is no tensor is left out."""
        return {item.name: list(axes) for item, axes in zip(self.inputs, self.open_axes, strict=True) if item.axes is not None}

    @property
    def free(self) -> dict[str, tuple[str, int]]:
        """Free size -> (input, axis) where it is read off."""
        found: dict[str, tuple[str, int]] = {}
        for item in self.inputs:
            for axis, size in enumerate(item.axes or ()):
                if isinstance(size, str) and _WORD.fullmatch(size):
                    found.setdefault(size, (item.name, axis))
        return found

    @property
    def words(self) -> str:
        """The inputs as text: numbers where an axis is bound, letters where it is free.

        >>> InputSizes((InputSize("x", ("n0", 3, "n1")), InputSize("flag", None, True))).words
        'x: a × 3 × b, flag = True'
        """
        letters = {name: _letter(at) for at, name in enumerate(self.free)}

        def axis(size: Axis) -> str:
            return _WORD.sub(lambda found: letters.get(found[0], found[0]), str(size))

        parts = [
            f"{item.name} = {item.value!r}" if item.axes is None else f"{item.name}: {' × '.join(map(axis, item.axes)) or 'a number'}"
            for item in self.inputs
        ]
        return ", ".join(parts)

    def read(self, leaves: Sequence[Any]) -> dict[str, int]:
        """Return the free sizes of inputs.

        Raises:
            InputError: a size, or a value of what is no tensor, that the graph is not for.
        """
        sizes: dict[str, int] = {}
        later = []
        for item, leaf in zip(self.inputs, leaves, strict=True):
            if item.axes is None:
                if isinstance(leaf, Tensor) or not _same_value(leaf, item.value):
                    got = "a tensor" if isinstance(leaf, Tensor) else repr(leaf)
                    raise _wrong(f"input {item.name}", f"{item.value!r}, the value of the example", got)
                continue
            if not isinstance(leaf, Tensor):
                raise _wrong(f"input {item.name}", "a tensor", type(leaf).__name__)
            if leaf.dim() != len(item.axes):
                raise _wrong(f"input {item.name}", f"{len(item.axes)} axes", f"shape {tuple(leaf.shape)}")
            for axis, (wanted, size) in enumerate(zip(item.axes, leaf.shape, strict=True)):
                if isinstance(wanted, str) and _WORD.fullmatch(wanted) and wanted not in sizes:
                    sizes[wanted] = int(size)
                else:
                    later.append((item.name, axis, wanted, int(size)))
        for name, axis, wanted, size in later:
            if (expected := wanted if isinstance(wanted, int) else value_of(wanted, sizes)) != size:
                why = "" if isinstance(wanted, int) else f", which is {self._in_words(wanted)}"
                raise _wrong(f"input {name}, axis {axis}", f"{expected}{why}", str(size))
        for condition in self.conditions:
            if not value_of(condition, sizes):
                read = ", ".join(f"{self._in_words(size)} = {sizes[size]}" for size in sorted(names_in(condition)) if size in sizes)
                raise _wrong(self._place(condition), self._in_words(condition), read)
        return sizes

    @property
    def open_axes(self) -> list[tuple[int, ...]]:
        """Of each input, the axes that have no number of their own."""
        return [tuple(axis for axis, size in enumerate(item.axes or ()) if isinstance(size, str)) for item in self.inputs]

    def shapes(self, sizes: Mapping[str, int]) -> list[Any]:
        """Return inputs without values, of these free sizes; what is no tensor as it is."""
        return [
            item.value if item.axes is None else torch.empty([_number(size, sizes) for size in item.axes], device="meta")
            for item in self.inputs
        ]

    def accepts(self, leaves: Sequence[Any]) -> bool:
        """Whether the graph is for inputs of these shapes."""
        try:
            self.read(leaves)
        except InputError:
            return False
        return True

    def varies(self, name: str, leaves: Sequence[Any]) -> bool:
        """Whether a free size may be another than in these inputs while all others stay."""
        example = self.read(leaves)
        tried = {*range(1, 9), example[name] + 1, 2 * example[name], 3 * example[name]} - {example[name]}
        return any(all(value_of(text, {**example, name: size}) for text in self.conditions) for size in tried)

    def without(self, conditions: Iterable[str]) -> InputSizes:
        """Return the same sizes without these conditions."""
        gone = set(conditions)
        return replace(self, conditions=tuple(text for text in self.conditions if text not in gone))

    def resized(self, inputs: Any, sizes: dict[str, int]) -> Any:
        """Return inputs (a tree of tensors) whose axes have these free sizes: their indices again and again, or the first of them."""
        leaves, spec = pytree.tree_flatten(inputs)
        for at, (item, leaf) in enumerate(zip(self.inputs, leaves, strict=True)):
            for axis, size in enumerate(item.axes or ()):
                wanted = _number(size, sizes)
                if wanted != leaf.shape[axis]:
                    leaf = leaf.index_select(axis, torch.arange(wanted, device=leaf.device) % leaf.shape[axis])
            leaves[at] = leaf
        return pytree.tree_unflatten(leaves, spec)

    def probe(self) -> list[Constant | Tensor]:
        """Return inputs of the sizes of the example, the same at every call: numbers around 0, and 0 and 1 for what is no real number.

        Raises:
            ArtifactError: nobody knows the types of the inputs.
        """
        sizes = dict(self.example)
        made: list[Constant | Tensor] = []
        draw = torch.Generator().manual_seed(0)
        for item in self.inputs:
            if item.axes is None:
                made.append(item.value)
                continue
            dtype = getattr(torch, item.dtype, None)
            if not isinstance(dtype, torch.dtype) or not names_in(" + ".join(map(str, item.axes)) or "0") <= sizes.keys():
                raise ArtifactError("a probe of inputs whose types are not known.", at=item.name)
            shape = [_number(size, sizes) for size in item.axes]
            if dtype.is_floating_point or dtype.is_complex:
                made.append(torch.randn(shape, generator=draw, dtype=torch.float64, device="cpu").to(dtype))
            else:
                made.append((torch.arange(math.prod(shape), device="cpu") % 2).view(shape).to(dtype))
        return made

    def _in_words(self, text: str) -> str:
        places = self.free
        return _WORD.sub(lambda found: "{}.shape[{}]".format(*places[found[0]]) if found[0] in places else found[0], text)

    def _place(self, condition: str) -> str:
        axes: dict[str, list[int]] = {}
        for name in sorted(names_in(condition)):
            owner, axis = self.free[name]
            axes.setdefault(owner, []).append(axis)
        words = (f"{'axis' if len(found) == 1 else 'axes'} {', '.join(map(str, sorted(found)))}" for found in axes.values())
        return "; ".join(f"input {owner}, {places}" for owner, places in zip(axes, words, strict=True))


def _number(size: Axis, sizes: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else int(value_of(size, sizes))


def _letter(at: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[at] if at < 26 else f"a{at}"


def _wrong(at: str, expected: str, got: str) -> InputError:
    hint = "the network itself (gt.load(path, into=model)), or example_inputs of that size for GETA and for the file"
    return InputError("this graph is not for inputs of that size.", at=at, expected=expected, got=got, hint=hint)


def _same_value(given: Any, wanted: Constant) -> bool:
    return type(given) is type(wanted) and (given == wanted or (given != given and wanted != wanted))


def sizes_of(exported: torch.export.ExportedProgram, *, strict: bool = True) -> InputSizes | None:
    """Return what sizes an exported program is for.

    None where torch says it in words that are no arithmetic of input sizes; not ``strict``: without what it says so, axes bound or free.
    """
    nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    names: dict[Any, str] = {}
    hints: dict[str, Any] = {}
    inputs, environment = [], None
    for given in exported.graph_signature.input_specs:
        if given.kind != InputKind.USER_INPUT:
            continue
        value = nodes[given.arg.name].meta.get("val")
        if not isinstance(value, Tensor):
            plain = getattr(given.arg, "value", value)
            inputs.append(InputSize(given.arg.name, None, plain if isinstance(plain, Constant) else None))
            continue
        environment = getattr(getattr(value, "fake_mode", None), "shape_env", None) or environment
        axes = tuple(_axis(size, names) for size in value.shape)
        traced: list[Any] = list(value.shape)
        hints |= {axis: size.node.hint for axis, size in zip(axes, traced, strict=True) if isinstance(axis, str)}
        inputs.append(InputSize(given.arg.name, axes, None, str(value.dtype).removeprefix("torch.")))
    try:
        found = InputSizes(tuple(inputs), tuple(_conditions(environment, names)) if environment is not None else ())
        free = found.free.keys()
        found = replace(found, example=tuple((name, int(hints[name])) for name in free if hints.get(name) is not None))
        if not strict:
            found = replace(found, conditions=tuple(text for text in found.conditions if _is_read(text, free)))
        texts = [*found.conditions, *(size for item in inputs for size in item.axes or () if isinstance(size, str))]
        return found if all(_is_read(text, free) for text in texts) else None
    except ArtifactError:
        return None


def _is_read(text: str, free: Collection[str]) -> bool:
    """Whether a text is arithmetic of these free sizes."""
    try:
        return names_in(text) <= set(free)
    except ArtifactError:
        return False


def _axis(size: Any, names: dict[Any, str]) -> Axis:
    return size if isinstance(size, int) else _written(size.node.expr, names)


def _written(expression: Any, names: dict[Any, str]) -> Axis:
    if expression.is_number:
        return int(expression)
    for symbol in sorted(expression.free_symbols, key=str):
        names.setdefault(symbol, f"n{len(names)}")
    kind: Any = type(next(iter(expression.free_symbols)))
    return str(PythonPrinter().doprint(expression.xreplace({symbol: kind(name, integer=True) for symbol, name in names.items()})))


def _conditions(environment: Any, names: dict[Any, str]) -> list[str]:
    """Return what torch found to hold for the sizes that it traced, and took for granted from there on."""
    found: dict[str, None] = {}
    for guard in environment.guards:
        expression = environment.simplify(guard.expr)
        if expression.is_Boolean or expression.is_Relational:
            text = str(expression) if str(expression) in ("True", "False") else str(_written(expression, names))
        else:
            text = "?"  # no arithmetic: refused where it is read
        if text != "True":
            found[text] = None
    return list(found)


def encode_sizes(sizes: InputSizes | None) -> Any:
    """Return sizes as JSON data."""
    if sizes is None:
        return None
    rows = [[item.name, list(item.axes) if item.axes is not None else None, item.value, item.dtype] for item in sizes.inputs]
    return {"inputs": rows, "conditions": list(sizes.conditions), "example": dict(sizes.example)}


def decode_sizes(data: Any) -> InputSizes | None:
    """Return sizes from JSON data.

    Raises:
        ArtifactError: data that are none.
    """
    if data is None:
        return None
    inputs = []
    for name, axes, value, dtype in data["inputs"]:
        fine = isinstance(name, str) and isinstance(dtype, str) and isinstance(value, Constant) and (axes is None or isinstance(axes, list))
        if not fine or not all(type(size) is int or isinstance(size, str) for size in axes or ()):
            raise ArtifactError("load: the sizes of an input are malformed.", at=str(name)[:80])
        inputs.append(InputSize(name, None if axes is None else tuple(axes), value, dtype))
    sizes = InputSizes(tuple(inputs), tuple(map(str, data["conditions"])), tuple(data["example"].items()))
    free = sizes.free.keys()
    if not all(name in free and type(size) is int and 0 < size < _LARGEST for name, size in sizes.example):
        raise ArtifactError("load: the example's sizes are malformed.", got=str(sizes.example)[:80])
    for text in (*sizes.conditions, *(size for item in inputs for size in item.axes or () if isinstance(size, str))):
        if not names_in(text) <= free:
            raise ArtifactError("load: a condition on sizes names what is no size of an input.", got=text[:80])
    return sizes
