"""What a run does, operator by operator, in a form that another run can be compared with. Beside the inputs and the comparison.

In: a model that runs. Out: its :class:`Steps`: each operator with its plain arguments, and for each tensor among them where it came from.
Two runs with the same steps compute the same from the same numbers, so that the second of them need have no numbers at all.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from geta_nb.graph.objects import tensors_in

_PLAIN = (bool, int, float, str, complex, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
_WRITTEN = 16  # elements of a constant in the code, known by its values
_LARGE = 50_000  # elements of a tensor of weights, on average, below which no run is long
_LONG = 4e7  # floating-point operations an operator, from which it takes longer than what a run without numbers adds to it

Place = tuple[Any, ...]
"""Where a tensor comes from: an input, the model, the code, or an operator before."""


@dataclass(frozen=True)
class Steps:
    """What a run did.

    Attributes:
        operators: each with its arguments, in order of execution.
        results: where the tensors that it gave out come from.
        work: its floating-point operations, in matrix products and convolutions.
    """

    operators: tuple[Any, ...]
    results: tuple[Place, ...]
    work: float = field(default=0.0, compare=False)

    @property
    def is_long(self) -> bool:
        """Whether another run is sooner done without numbers."""
        return self.work > _LONG * len(self.operators)


class _Unknown(Exception):
    """Something among the arguments of which nobody can say what it is."""


class OtherStepError(Exception):
    """A run does something else than the one that it is compared with."""


class Recorder(TorchDispatchMode):
    """Notes each operator of a run; where it does not know an argument, :meth:`steps` says so afterwards, and the run goes on.

    Args:
        tensors: the very same in every run, such as the model's parameters and buffers.
        inputs: what the model is given, in order.

    Attributes:
        expected: operators of another run; an :class:`OtherStepError` ends this one where it does something else. None: it goes on.
    """

    expected: tuple[Any, ...] | None = None

    def __init__(self, tensors: Iterable[Tensor], inputs: Iterable[Any] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places: dict[int, tuple[weakref.ReferenceType[Tensor], Place]] = {}
        self._operators: list[Any] = []
        self._known, self._work = True, 0.0
        for tensor in tensors:
            self.place(tensor, ("model", id(tensor)))
        self.take(inputs)

    def take(self, inputs: Iterable[Any]) -> None:
        """Note what the model is given, in order."""
        for at, leaf in enumerate(inputs):
            if isinstance(leaf, Tensor):
                self.place(leaf, ("input", at))

    def place(self, tensor: Tensor, place: Place) -> None:
        """Note where a tensor comes from; it is not held, so that a run needs no more memory than alone."""
        self._places[id(tensor)] = weakref.ref(tensor), place

    def rename(self, tensor: Tensor, known: Tensor) -> None:
        """Note that a tensor is another name of one that is known, if it is."""
        if id(known) in self._places:
            self.place(tensor, self.place_of(known))

    def place_of(self, tensor: Tensor) -> Place:
        """Return where a tensor comes from."""
        found = self._places.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else _written(tensor)

    def steps(self, out: Any) -> Steps | None:
        """Return what led to an output; None where that is not known."""
        try:
            return Steps(tuple(self._operators), tuple(map(self.place_of, tensors_in(out))), self._work) if self._known else None
        except Exception:  # of an object of the user's own
            return None

    def are_gone(self) -> bool:
        """Whether nobody holds any more what operators gave out."""
        return not any(place[0] == "step" and tensor() is not None for tensor, place in self._places.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note it."""
        given = self._given(func, args, kwargs)
        if given is not None and not self._is_expected(given):
            raise OtherStepError
        out = func(*args, **(kwargs or {}))
        self._note(given, out)
        if self.expected is None and self._known:
            self._weigh(func, args, kwargs, out)
        return out

    def _is_expected(self, given: Any) -> bool:
        at = len(self._operators)
        return self.expected is None or (at < len(self.expected) and self.expected[at] == given)

    def _given(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not self._known or getattr(func, "namespace", "") == "prim":  # asked on tensors without numbers alone: their device
            return None
        try:
            return func, self._told(args), self._told(kwargs or {})
        except Exception:  # a tensor of a kind that cannot be read, or an object
            self._known = False
            return None

    def _note(self, given: Any, out: Any) -> None:
        if given is not None:
            for at, leaf in enumerate(pytree.tree_leaves(out) if isinstance(out, (tuple, list)) else (out,)):
                if isinstance(leaf, Tensor):
                    self.place(leaf, ("step", len(self._operators), at))
            self._operators.append(given)

    def _weigh(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        try:
            formula = flop_registry.get(func.overloadpacket)
            self._work += formula(*args, **(kwargs or {}), out_val=out) if formula is not None else 0
        except Exception:  # of torch's own, on a form that it does not know
            self._known = False

    def _told(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.place_of(value)
        if isinstance(value, (tuple, list)):
            return (type(value).__name__, *map(self._told, value))
        if isinstance(value, dict):
            return tuple((key, self._told(item)) for key, item in value.items())
        if type(value) not in _PLAIN:
            raise _Unknown
        return type(value).__name__, repr(value) if isinstance(value, (float, complex)) else value


def _written(tensor: Tensor) -> Place:
    """Return a constant of the code, which is another object in each run, by its values."""
    if tensor.numel() > _WRITTEN or type(tensor) is not Tensor:
        raise _Unknown
    with unset_fake_temporarily():
        return "code", str(tensor.dtype), tuple(tensor.shape), str(tensor.tolist())


def may_be_long(model: nn.Module) -> bool:
    """Whether it is worth noting what a run does: it runs on the processor, and its tensors of weights are large."""
    sizes = [parameter.numel() for parameter in model.parameters()]
    return bool(sizes) and sum(sizes) >= _LARGE * len(sizes) and all(parameter.device.type == "cpu" for parameter in model.parameters())


@contextmanager
def without_numbers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Let what runs in the block know shapes and types alone; yield inputs for it. Nothing real is written or given out in it.

    A model runs on numbers before: what it makes on its first call and keeps must hold some.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield pytree.tree_map_only(Tensor, lambda leaf: mode.from_tensor(leaf.clone(), static_shapes=True), (args, kwargs))
