"""Cut the original modules: the same classes, smaller. Part of stage 7; imports nothing of the package.

Comes in: the dense model, its new (already sliced) tensors, and the sizes that changed in the trace. Goes out: a deep copy of the model
with those tensors and with the numbers that describe them (``out_channels``, ``groups``, ``num_heads``, ``eps``, ...) patched, or
``None`` where no patch makes it compute the right thing; the caller then hands out the cut graph instead.

No class and no attribute is known by name. Evidence is by value: an attribute that equals an old size gets the new one. Where an old
size has several new ones, a module that owns tensors is rebuilt on the meta device by its own constructor, which tells which attribute
stands for which axis; what stays open is tried, and the caller's ``check`` decides. Objects that modules may share (a configuration)
are never written to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.graph import own_draws

Number = int | float | None
Pairs = set[tuple[Number, Number]]
Attributes = dict[str, Any]

_OWN = frozenset(vars(nn.Module()))  # what every module has: hooks, training, the parameter tables
_MAX_LOCAL = 512  # combinations of one module's attributes that are looked at


@dataclass(frozen=True)
class _Choice:
    """A module and the attribute values it could have, the most plausible first."""

    module: nn.Module
    options: list[Attributes]

    @property
    def kind(self) -> tuple[object, ...]:
        """Modules of one kind get the same answer: twelve equal layers are one question, not twelve."""
        return (type(self.module), *sorted(self.options[0]), len(self.options))


def cut_native(
    model: nn.Module,
    *,
    new_tensors: Mapping[str, Tensor],
    size_changes: Mapping[str, Iterable[tuple[Number, Number]]],
    check: Callable[[nn.Module], bool],
    max_tries: int = 32,
) -> nn.Module | None:
    """Return a smaller deep copy of ``model`` built of its own classes, or ``None``.

    Args:
        model: dense model without parametrizations; not changed. Activation quantizers (submodules, hooks) stay where they are.
        new_tensors: parameter or buffer name -> its new values, already sliced. A tied tensor may be given under any of its names and
            stays tied; what is not named stays as it is. An ``nn.Parameter`` given for a parameter is taken over as the object it is,
            anything else is copied.
        size_changes: module path -> (old, new) pairs of the numbers in the nodes that this module's own forward ran (views, splits,
            expands, groups, the epsilon of a norm, ...); None: a number that was left to its default. Give unchanged ones too, (8, 8):
            they tell what must stay. For nodes with a weight, the channel sizes of input and output as well. The axes of the module's
            own tensors are added here.
        check: whether a candidate computes the right thing; it may raise, which counts as no. It must leave the candidate as it was.
        max_tries: calls of ``check`` before giving up.

    Returns:
        The cut copy, in the model's training mode, or ``None``: a tensor without a home, or no attributes that ``check`` accepts.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> new = {"0.weight": net[0].weight[:5], "0.bias": net[0].bias[:5], "2.weight": net[2].weight[:, :5]}
    >>> cut_native(net, new_tensors=new, size_changes={}, check=lambda m: m(torch.ones(1, 4)).shape == (1, 2))[0]
    Linear(in_features=4, out_features=5, bias=True)
    """
    if not all(_has_tensor(model, name) for name in new_tensors):
        return None
    copy = _deep_copy(model, new_tensors)
    if copy is None:
        return None
    modules = {id(module): module for module in copy.modules()}
    before = {id(module): _shapes(model.get_submodule(path)) for path, module in copy.named_modules()}
    pairs: dict[int, Pairs] = {key: _axis_pairs(before[key], _shapes(module)) for key, module in modules.items()}
    for path, found in size_changes.items():
        pairs.setdefault(id(_submodule(copy, path)), set()).update(found)
    changed = {key: _numbers(modules[key]) for key in modules if any(old != new for old, new in pairs[key])}
    constants = {key: {new for old, new in found if type(new) is float and old != new} for key, found in pairs.items()}
    if any(needed for key, needed in constants.items() if key not in modules):
        return None  # the epsilon of a norm stands in a function
    tried: set[str] = set()
    for staying in (False, True):
        if staying and not any(_coincide(now, pairs[key]) for key, now in changed.items()):
            break
        for key, now in changed.items():  # as they were, whatever was tried before
            _set(modules[key], now)
        choices = [_Choice(modules[key], _options(modules[key], pairs[key], before[key], staying=staying)) for key in changed]
        for attributes in _assignments([choice for choice in choices if choice.options != [{}]], max_tries - len(tried)):
            for module, values in attributes:
                _set(module, values)
            state = repr([_numbers(modules[key]) for key in changed])
            if state in tried:
                continue
            tried.add(state)
            # an epsilon that is written into a forward shows on small inputs alone, where no check may look
            if all(needed <= set(_numbers(modules[key]).values()) for key, needed in constants.items() if needed) and _passes(check, copy):
                return copy
    return None


def _set(module: nn.Module, values: Attributes) -> None:
    for name, value in values.items():
        setattr(module, name, value)


def _deep_copy(model: nn.Module, new_tensors: Mapping[str, Tensor]) -> nn.Module | None:
    """Return a deep copy in which the new tensors stand wherever the old ones did: ties and lists of weights kept aside stay true."""
    new: dict[int, Any] = {}
    for name, tensor in new_tensors.items():
        old = _tensor(model, name)
        if id(old) not in new:
            new[id(old)] = tensor if type(tensor) is type(old) is nn.Parameter else _like(old, tensor)
    try:
        copy = deepcopy(model, dict(new))
    except (TypeError, RuntimeError, NotImplementedError):
        return None  # holds what Python or torch cannot copy: a lock, a tensor of a graph
    if [path for path, _ in copy.named_modules()] != [path for path, _ in model.named_modules()]:
        return None
    for name in new_tensors:
        wanted, found = new[id(_tensor(model, name))], _tensor(copy, name)
        if found is not wanted:  # a class that copies itself in its own way
            found.data = wanted.detach().clone()
    return copy


def _like(old: Tensor, new: Tensor) -> Tensor:
    """Return a copy of ``new`` that is what ``old`` is: a parameter, of its class, or a buffer."""
    value = new.detach().clone()
    return type(old)(value, old.requires_grad) if isinstance(old, nn.Parameter) else value


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at ``path``; ``None`` for a path that is none (a traced function, not a module)."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    tensor = owner._parameters.get(leaf)
    return tensor if tensor is not None else owner._buffers[leaf]  # type: ignore[return-value]


def _has_tensor(model: nn.Module, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    owner = _submodule(model, path)
    return owner is not None and any(table.get(leaf) is not None for table in (owner._parameters, owner._buffers))


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that the module itself owns."""
    tables = (*module._parameters.items(), *module._buffers.items())
    return {name: tuple(tensor.shape) for name, tensor in tables if tensor is not None}


def _axis_pairs(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> Pairs:
    return {pair for name, shape in before.items() for pair in zip(shape, after[name], strict=True)}


def _numbers(module: nn.Module) -> Attributes:
    """Return the module's attributes that are a number, none, or a tuple or list of integers."""
    found = {}
    for name, value in vars(module).items():
        row = type(value) in (tuple, list, torch.Size) and value and all(type(item) is int for item in value)
        if name not in _OWN and (row or value is None or type(value) in (int, float)):
            found[name] = value
    return found


def changed_numbers(before: nn.Module, after: nn.Module) -> dict[str, Attributes]:
    """Return what a cut changed beside tensors: module path -> attribute -> new value."""
    found = {}
    for path, module in after.named_modules():
        old = vars(owner) if (owner := _submodule(before, path)) is not None else {}
        changes = {name: value for name, value in _numbers(module).items() if name in old and old[name] != value}
        if changes:
            found[path] = changes
    return found


def _alternatives(value: Any, pairs: Pairs) -> list[Any]:
    """Return the values that an attribute may have after the cut, [value] where no evidence touches it."""
    if value is None or type(value) in (int, float):
        return sorted({new for old, new in pairs if type(old) is type(value) and old == value}) or [value]
    return [type(value)(items) for items in islice(product(*(_alternatives(item, pairs) for item in value)), _MAX_LOCAL)]


def _coincide(now: Attributes, pairs: Pairs) -> list[str]:
    """Return the attributes that share a number, which a cut changes, with another one: one of them may mean something else."""
    rows = {name: value if isinstance(value, (tuple, list)) else (value,) for name, value in now.items()}
    numbers = {name: {(type(item), item) for item in row} for name, row in rows.items()}  # 2 heads are not a scale of 2.0
    changed = {(type(old), old) for old, new in pairs if old != new}
    shared = [number for number in changed if sum(number in held for held in numbers.values()) > 1]
    return [name for name, held in numbers.items() if not held.isdisjoint(shared)]


def _options(module: nn.Module, pairs: Pairs, before: dict[str, tuple[int, ...]], *, staying: bool = False) -> list[Attributes]:
    """Return the possible values of a module's attributes, those with the fewest changes first.

    Args:
        staying: whether of attributes that have the same value by chance some may stay as they are (a number of heads, a stride).
    """
    now = _numbers(module)
    candidates = {name: alternatives for name, value in now.items() if (alternatives := _alternatives(value, pairs)) != [value]}
    for name in _coincide(now, pairs) if staying else ():
        candidates[name] = [*candidates[name], now[name]]
    combinations = [dict(zip(candidates, values, strict=True)) for values in islice(product(*candidates.values()), _MAX_LOCAL)]
    if before and len(combinations) > 1:
        combinations = _buildable(module, now, combinations, before) or combinations
    touched = sorted({name for option in combinations for name in option})
    whole = [{name: option.get(name, now[name]) for name in touched} for option in combinations]  # each option undoes the one before
    distinct = {repr(option): option for option in whole}

    def plausibility(option: Attributes) -> tuple[object, ...]:
        changed = [name for name in touched if option[name] != now[name]]
        return len(changed), changed, repr(option)

    return sorted(distinct.values(), key=plausibility)


def _buildable(module: nn.Module, now: Attributes, combinations: list[Attributes], before: dict[str, tuple[int, ...]]) -> list[Attributes]:
    """Return the combinations from which the module's own constructor makes tensors of the new shapes.

    Attributes that the constructor derives (a head size) are taken from what it made. Empty where the constructor cannot be called
    with what the module remembers of its arguments, or takes none of these attributes (a configuration in their place) and so knows
    nothing of their new values.
    """
    taken = list(inspect.signature(type(module).__init__).parameters)
    if not any(name in taken for combination in combinations for name in combination):
        return []
    original = _rebuild(module, {})
    if original is None or _shapes(original) != before:
        return []
    derived = [name for name, value in now.items() if vars(original).get(name) == value]
    found, after = [], _shapes(module)
    for combination in combinations:
        sibling = _rebuild(module, combination)
        if sibling is not None and _shapes(sibling) == after:
            values = combination | {name: vars(sibling)[name] for name in derived}
            found.append({name: value for name, value in values.items() if name in combination or value != now[name]})
    return found


def _rebuild(module: nn.Module, values: Attributes) -> nn.Module | None:
    """Call the module's constructor on the meta device with the arguments it kept as attributes, ``values`` in place of theirs."""
    kept, arguments = vars(module) | values, {}
    try:
        for name in list(inspect.signature(type(module).__init__).parameters)[1:]:
            if name in kept:
                arguments[name] = kept[name]
            elif name in module._parameters:
                arguments[name] = module._parameters[name] is not None  # bias=True
        with own_draws(), torch.device("meta"):
            return type(module)(**arguments)
    except Exception:  # foreign code, called with a guess: whatever it raises means no
        return None


def _assignments(choices: list[_Choice], max_tries: int) -> Iterator[list[tuple[nn.Module, Attributes]]]:
    """Yield attribute values for all modules together, plausible first; modules of one kind take the same option."""
    kinds = list(dict.fromkeys(choice.kind for choice in choices))
    sizes = {choice.kind: len(choice.options) for choice in choices}
    indices = islice(product(*(range(sizes[kind]) for kind in kinds)), 128 * max_tries)
    for picked in sorted(indices, key=sum)[:max_tries]:
        index = dict(zip(kinds, picked, strict=True))
        yield [(choice.module, choice.options[index[choice.kind]]) for choice in choices]


def _passes(check: Callable[[nn.Module], bool], candidate: nn.Module) -> bool:
    try:
        return bool(check(candidate))
    except Exception:  # a candidate with a wrong attribute fails somewhere in the user's own code
        return False
