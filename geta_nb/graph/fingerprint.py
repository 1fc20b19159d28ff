"""What a trace of a model depends on, in a form that says later whether anything of it has changed. Beside the trace.

In: a model, and its example inputs. Out: a :class:`Fingerprint`: plain facts, compared by value, and objects, compared by identity and
held weakly. What cannot be told that way (a tensor that is no buffer, an object that shows no attributes) makes the whole
:class:`Unreadable`: then nobody may take an old trace for a new one.
"""

from __future__ import annotations

import enum
import functools
import logging
import sys
import sysconfig
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils import _pytree as pytree

_PLAIN = (bool, int, str, bytes, complex, type(None), type(Ellipsis), range, torch.dtype, torch.device, torch.layout, torch.memory_format)
_ROWS = (tuple, list, dict, OrderedDict, deque, torch.Size)
_MOST = 200_000
_NOT_READ = frozenset((
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
))  # fmt: skip
"""Attributes of a module that are read by what they are for, or that no forward reads."""
_LIBRARY = ("site-packages", "dist-packages", sysconfig.get_paths()["stdlib"])
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks")


class Unreadable(Exception):
    """Something that a trace may depend on, and of which nobody can say whether it has changed."""


@dataclass(frozen=True)
class Own:
    """What a trace does not show of a model, and its fingerprint leaves out.

    Attributes:
        kind: class of modules that the trace goes through; a parameter that such a module computes reads as what it is made of.
        hook: says of a hook whether it belongs to such a module.
    """

    kind: type[nn.Module]
    hook: Callable[[Any], bool]


@dataclass(frozen=True)
class Fingerprint:
    """Facts and objects; two are the same where all of them are."""

    facts: tuple[Any, ...]
    objects: tuple[weakref.ReferenceType[Any], ...]

    def same(self, other: Fingerprint) -> bool:
        """Whether nothing has changed between the two; an object that is gone has."""
        if len(self.objects) != len(other.objects) or self.facts != other.facts:
            return False
        pairs = ((mine(), theirs()) for mine, theirs in zip(self.objects, other.objects, strict=True))
        return all(mine is theirs and mine is not None for mine, theirs in pairs)


def fingerprint(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], own: Own) -> Fingerprint:
    """Return what a trace of ``model`` in eval mode with these inputs depends on; values of tensors are no part of it.

    Args:
        model: its module tree, attributes, hooks, forwards and what these call are read; quantizers of ours are looked through.
        args, kwargs: example inputs.
        own: what is looked through.

    Raises:
        Unreadable: a part of it cannot be told.
    """
    reader = _Reader(own)
    reader.facts += _surroundings()
    reader.inputs(args, kwargs)
    try:
        reader.read(model)
    except (RecursionError, AttributeError, RuntimeError, TypeError, ValueError) as error:  # of the user's own objects
        raise Unreadable(str(error)) from error
    return Fingerprint(tuple(reader.facts), tuple(reader.objects))


def _surroundings() -> list[Any]:
    """Return what of torch's own state changes a trace.

    Raises:
        Unreadable: hooks on all modules.
    """
    if any(getattr(torch_module, name, None) for name in _GLOBAL_HOOKS):
        raise Unreadable("hooks on all modules")
    cuda = torch.backends.cuda
    return [
        torch.get_default_dtype(), torch.get_default_device(), torch.is_inference_mode_enabled(),
        *((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")),
        torch.are_deterministic_algorithms_enabled(), torch.backends.mkldnn.enabled,
        cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(),
    ]  # fmt: skip


@dataclass
class _Reader:
    own: Own
    facts: list[Any] = field(default_factory=list)
    objects: list[weakref.ReferenceType[Any]] = field(default_factory=list)
    met: dict[int, tuple[int, Any]] = field(default_factory=dict)  # the object too: its number must not become another's

    def identity(self, value: Any) -> None:
        """Note that this is the very object."""
        try:
            self.objects.append(weakref.ref(value))
        except TypeError:
            raise Unreadable(f"a {type(value).__name__}") from None

    def inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        first: dict[int, int] = {}
        self.facts.append(spec)
        for at, leaf in enumerate(leaves):
            self.facts.append(first.setdefault(id(leaf), at) if isinstance(leaf, Tensor) else "")
            self.tensor(leaf) if isinstance(leaf, Tensor) else self.read(leaf)

    def tensor(self, value: Tensor) -> None:
        layout = value.stride() if value.layout == torch.strided else ()
        self.facts += [type(value).__name__, value.shape, layout, value.dtype, value.device, value.layout, value.requires_grad]

    def read(self, value: Any) -> None:
        """Note a value and all that can be reached from it.

        Raises:
            Unreadable: it cannot be told.
        """
        kind = type(value)
        if kind in _PLAIN:
            self.facts.append((kind.__name__, value))
        elif kind is float:
            self.facts.append(value.hex())
        elif len(self.met) + len(self.facts) > _MOST:
            raise Unreadable("too much to read")
        elif kind in _ROWS:
            self.rows(value)  # read again wherever it stands: the exporter puts copies of a module's lists back
        elif id(value) in self.met:
            self.facts.append(("again", self.met[id(value)][0]))
        else:
            self.met[id(value)] = len(self.met), value
            self._read_new(value, kind)

    def _read_new(self, value: Any, kind: type) -> None:
        if isinstance(value, nn.Module):
            _read_module(self, value)
        elif isinstance(value, Tensor):
            raise Unreadable("a tensor that is no buffer")
        elif isinstance(value, type):
            _read_class(self, value)
        elif isinstance(value, types.ModuleType | logging.Logger | torch._ops.OpOverload | torch._ops.OpOverloadPacket):
            self.identity(value)
        elif kind in (set, frozenset):
            self.facts.append((kind.__name__, *sorted(map(_word, value))))
        elif isinstance(value, enum.Enum):
            self.facts.append(value.name)
            self.identity(kind)
        elif not _read_callable(self, value):
            _read_object(self, value)

    def rows(self, value: Any) -> None:
        self.facts.append((type(value).__name__, len(value)))
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            self.read(key)
            self.read(item)


def _word(item: Any) -> str:
    if type(item) not in _PLAIN:
        raise Unreadable("a set of objects")
    return f"{type(item).__name__}:{item}"


def _read_module(reader: _Reader, module: nn.Module) -> None:
    """Note a module without what stands on it of ours."""
    looked_through, table = _parametrized(reader.own, module)
    reader.identity(module)
    reader.read(type(module).__bases__[0] if looked_through else type(module))
    for name, value in module.__dict__.items():
        if name not in _NOT_READ:
            reader.facts.append(name)
            reader.read(value)
    _read_hooks(reader, module)
    for name, tensor in (*_parameters(module, table), *module._buffers.items()):
        reader.facts += [name, name in module._non_persistent_buffers_set]
        if tensor is not None:
            reader.identity(tensor)
            reader.tensor(tensor)
    for name, child in module._modules.items():
        if not isinstance(child, reader.own.kind) and not (looked_through and name == "parametrizations"):
            reader.facts.append(name)
            reader.read(child)


def _parametrized(own: Own, module: nn.Module) -> tuple[bool, dict[str, Any]]:
    """Return whether parameters are computed by modules of ours alone, and these parameters' names with what they are made of.

    Raises:
        Unreadable: others compute one.
    """
    table = module._modules.get("parametrizations")
    if not isinstance(table, nn.ModuleDict) or not torch.nn.utils.parametrize.is_parametrized(module):
        return False, {}
    found = {}
    for name, parts in table.items():
        tensors: Any = parts
        if len(tensors) != 1 or not isinstance(tensors[0], own.kind):
            raise Unreadable("a parameter that is computed")
        found[name] = tensors
    return True, found


def _parameters(module: nn.Module, computed: dict[str, Any]) -> Iterator[tuple[str, Tensor | None]]:
    """Yield parameters by name; those that ours compute are as they were before."""
    found = {**module._parameters, **{name: tensors.original for name, tensors in computed.items()}}
    yield from sorted(found.items())


def _read_hooks(reader: _Reader, module: nn.Module) -> None:
    if module._backward_hooks or module._backward_pre_hooks:
        raise Unreadable("hooks on the way back")
    for hooks, named in (
        (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs), (module._forward_hooks, module._forward_hooks_with_kwargs)
    ):  # fmt: skip
        for number, hook in hooks.items():
            if not reader.own.hook(hook):
                reader.facts.append(("hook", number in named))
                reader.read(hook)


def _read_class(reader: _Reader, kind: type) -> None:
    """Note a class; of one that is not torch's or Python's own, what its methods are now."""
    reader.identity(kind)
    for base in kind.__mro__:
        if not _is_settled(base.__module__):
            reader.identity(base)
            for name, value in vars(base).items():
                reader.facts.append(name)
                _read_member(reader, name, value)


def _read_member(reader: _Reader, name: str, value: Any) -> None:
    """Note a member of a class: functions, and what is plain; what Python writes there itself is neither."""
    for part in _inside(value):
        if isinstance(part, types.FunctionType | types.MethodType):
            reader.read(part)
        elif name.startswith("__") or isinstance(part, types.MemberDescriptorType | types.GetSetDescriptorType | type(None)):
            continue
        elif isinstance(part, type):
            reader.identity(part)
        else:
            reader.read(part)


def _inside(value: Any) -> tuple[Any, ...]:
    """Return the functions of a descriptor, else the value alone."""
    if isinstance(value, property):
        return value.fget, value.fset
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    return (value.func,) if isinstance(value, functools.cached_property) else (value,)


def _read_callable(reader: _Reader, value: Any) -> bool:
    """Note a function with what it refers to; whether the value is one."""
    if isinstance(value, types.MethodType):
        reader.read(value.__func__)
        reader.read(value.__self__)
    elif isinstance(value, functools.partial):
        for part in (value.func, value.args, value.keywords):
            reader.read(part)
    elif isinstance(value, types.BuiltinFunctionType):
        if not isinstance(value.__self__, types.ModuleType | type | None):
            raise Unreadable("a method of an object of Python's own")
        reader.facts.append((value.__module__, value.__qualname__))
    elif isinstance(value, types.FunctionType):
        reader.identity(value)
        reader.identity(value.__code__)
        if not _is_settled(value.__module__):
            _read_references(reader, value)
    else:
        return False
    return True


def _read_references(reader: _Reader, function: types.FunctionType) -> None:
    """Note what a function reads beside its arguments; of a library's, one step far."""
    library = any(place in function.__code__.co_filename for place in _LIBRARY)
    for cell in function.__closure__ or ():
        wrapped = isinstance(cell.cell_contents, types.FunctionType)  # a decorator holds what it decorates here
        reader.read(cell.cell_contents) if wrapped else _refer(reader, cell.cell_contents, library)
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        _refer(reader, value, library)
    names = sorted(_names(function.__code__))
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
            reader.facts.append(name)
            _refer(reader, value, library)
            if isinstance(value, types.ModuleType) and not _is_settled(value.__name__):
                for attribute in names:
                    if attribute in vars(value):
                        _refer(reader, vars(value)[attribute], library)


def _refer(reader: _Reader, value: Any, library: bool) -> None:
    """Note what a function refers to: of a library's, numbers, and that functions and classes are the same."""
    if not library or type(value) in _PLAIN or type(value) is float:
        reader.read(value)
    elif isinstance(value, types.FunctionType | type):
        reader.identity(value)


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(item) for item in code.co_consts if isinstance(item, types.CodeType))
    return set(code.co_names).union(*inner)


def _read_object(reader: _Reader, value: Any) -> None:
    """Note an object by its class and its attributes."""
    kind = type(value)
    slots = [name for base in kind.__mro__ for name in _slots(base) if hasattr(value, name)]
    attributes = getattr(value, "__dict__", None)
    if attributes is None and not slots:
        raise Unreadable(f"a {kind.__name__}")
    reader.read(kind)
    if isinstance(value, dict | list | tuple):
        reader.rows(value)
    elif isinstance(value, set | frozenset):
        raise Unreadable("a set of objects")
    for name, item in (attributes or {}).items():
        reader.facts.append(name)
        reader.read(item)
    for name in slots:
        reader.facts.append(name)
        reader.read(getattr(value, name))


def _slots(kind: type) -> tuple[str, ...]:
    names = kind.__dict__.get("__slots__", ())
    return tuple(name for name in ((names,) if isinstance(names, str) else names) if name not in ("__dict__", "__weakref__"))


def _is_settled(module: str | None) -> bool:
    """Whether a module is torch's, numpy's, this package's or Python's own."""
    top = str(module).partition(".")[0]
    return top in ("torch", "numpy", __name__.partition(".")[0]) or top in sys.stdlib_module_names
