"""How small the network has to become: one sparsity or one cost target, bit ranges, and exceptions per layer.

Comes in from the user; goes to the preview in ``cost``, which prices it, and to the optimizer in ``qasso``, which meets it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from geta_nb.config import check_bit_range
from geta_nb.errors import BudgetError
from geta_nb.views import Shown

DEFAULT_SPARSITY = 0.5
ALLOCATIONS = ("joint", "cost", "uniform")


def paths_of(name: str) -> Iterator[str]:
    """Yield ``name`` and every module path above it: ``"a.b.weight"`` gives ``a.b.weight``, ``a.b``, ``a``."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` names this layer or parameter, or a module that holds it; always whole paths, never a substring.

    >>> matches("c1", "c1.weight"), matches("c1", "c10.weight"), matches("encoder.*", "encoder.0.fc")
    (True, False, True)
    """
    return any(fnmatchcase(path, pattern) for path in paths_of(name))


def _check_fraction(owner: str, name: str, value: object, *, above_zero: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1 or (above_zero and value == 0):  # type: ignore[arg-type]
        expected = f"a fraction, 0 {'<' if above_zero else '<='} {name} <= 1"
        raise BudgetError(f"{owner}: {name} is out of range.", expected=expected, got=repr(value), hint=f"{name}=0.3")


@dataclass(frozen=True)
class LayerBudget(Shown):
    """An exception for the layers that one pattern names.

    Args:
        protect: remove no group that these layers produce.
        bit_range: weight bits, (lower, upper); None: as in the budget.
        activation_bit_range: the same for their input quantizers.
        max_sparsity: at most this share of each family that these layers produce is removed; None: no limit.

    Raises:
        BitWidthError: a malformed bit range.
        BudgetError: ``max_sparsity`` outside 0 .. 1.
    """

    protect: bool = False
    bit_range: tuple[int, int] | None = None
    activation_bit_range: tuple[int, int] | None = None
    max_sparsity: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.protect, bool):
            raise BudgetError("LayerBudget: protect is a switch.", expected="True or False", got=repr(self.protect))
        for name in ("bit_range", "activation_bit_range"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_bit_range(name, getattr(self, name)))
        if self.max_sparsity is not None:
            _check_fraction("LayerBudget", "max_sparsity", self.max_sparsity)


@dataclass(frozen=True)
class Budget(Shown):
    """What the finished network may cost.

    Args:
        group_sparsity: share of all prunable groups to remove, 0 .. 1; 0.5 unless a target is given (then None).
        bit_range: (b_l, b_u) of weights, in bits, sign included.
        activation_bit_range: the same for activations.
        round_to: kept groups of a family are a multiple of this where that can be.
        exceptions: pattern of whole layer or module paths -> :class:`LayerBudget`; later patterns win, field by field.
        relative_bops: target instead of ``group_sparsity``: BOPs (paper's counting) over those of the dense fp32 model, 0 .. 1.
        size_bytes: target instead of ``group_sparsity``: weights of the finished network, in bytes.
        allocation: how a cost target is split: ``"joint"``: bits of each layer and groups of each family together, by the rise of the loss
            for what is saved, measured during the run (with the default rules; others measure nothing and split as ``"cost"``);
            ``"cost"``: a layer that costs little keeps more bits than the low end of its range, one for each factor of four that it is
            cheaper than the dearest one, and groups do the rest; ``"uniform"``: all layers may fall to the low end.

    Raises:
        BudgetError: two targets, a value out of range, an exception that is no ``LayerBudget``.
        BitWidthError: a malformed bit range.

    >>> Budget(0.25).n_redundant(10), Budget(relative_bops=0.03).group_sparsity
    (3, None)
    """

    group_sparsity: float | None = None
    bit_range: tuple[int, int] = (4, 16)
    activation_bit_range: tuple[int, int] = (4, 16)
    round_to: int = 1
    exceptions: Mapping[str, LayerBudget] = field(default_factory=dict, hash=False)
    relative_bops: float | None = field(default=None, kw_only=True)
    size_bytes: float | None = field(default=None, kw_only=True)
    allocation: str = field(default="joint", kw_only=True)

    def __post_init__(self) -> None:
        self._check_targets()
        if self.allocation not in ALLOCATIONS:
            expected = " or ".join(map(repr, ALLOCATIONS))
            raise BudgetError("Budget: no such allocation.", expected=expected, got=repr(self.allocation), hint='allocation="uniform"')
        for name in ("bit_range", "activation_bit_range"):
            object.__setattr__(self, name, check_bit_range(name, getattr(self, name)))
        if not isinstance(self.round_to, int) or isinstance(self.round_to, bool) or self.round_to < 1:
            raise BudgetError("Budget: round_to counts groups.", expected="a whole number >= 1", got=repr(self.round_to))
        if not isinstance(self.exceptions, Mapping):
            raise BudgetError(
                "Budget: exceptions maps patterns to budgets.", got=repr(self.exceptions),
                hint='exceptions={"head.*": LayerBudget(protect=True)}',
            )
        for pattern, layer in self.exceptions.items():
            if not isinstance(pattern, str) or not isinstance(layer, LayerBudget):
                raise BudgetError(
                    "Budget: an exception is a pattern with a LayerBudget.", at=pattern, got=repr(layer),
                    hint=f'exceptions={{"{pattern}": LayerBudget(protect=True)}}',
                )
        object.__setattr__(self, "exceptions", dict(self.exceptions))

    def _check_targets(self) -> None:
        given = [n for n in ("group_sparsity", "relative_bops", "size_bytes") if getattr(self, n) is not None]
        if not given:
            object.__setattr__(self, "group_sparsity", DEFAULT_SPARSITY)
        elif len(given) > 1:
            raise BudgetError(
                "Budget: only one of the targets can decide how much is pruned.",
                expected="one of group_sparsity, relative_bops, size_bytes",
                got=", ".join(f"{n}={getattr(self, n)}" for n in given),
                hint=f"Budget({given[-1]}={getattr(self, given[-1])})",
            )
        if self.group_sparsity is not None:
            _check_fraction("Budget", "group_sparsity", self.group_sparsity)
        if self.relative_bops is not None:
            _check_fraction("Budget", "relative_bops", self.relative_bops, above_zero=True)
        size = self.size_bytes
        if size is not None and (isinstance(size, bool) or not isinstance(size, (int, float)) or not 0 < size < math.inf):
            raise BudgetError("Budget: size_bytes is out of range.", expected="a number > 0", got=repr(size))

    @property
    def target(self) -> tuple[str, float] | None:
        """The cost target as ("relative_bops" | "size_bytes", value), or None with a fixed sparsity."""
        if self.relative_bops is not None:
            return "relative_bops", float(self.relative_bops)
        return ("size_bytes", float(self.size_bytes)) if self.size_bytes is not None else None

    def n_redundant(self, n_groups: int) -> int:
        """K, the number of groups to remove of ``n_groups``: floor(group_sparsity * n_groups + 0.5); 0 for a cost target."""
        return 0 if self.group_sparsity is None else math.floor(self.group_sparsity * n_groups + 0.5)

    def layer(self, name: str) -> LayerBudget:
        """Return the exceptions that hold for one layer or parameter path, merged; a plain ``LayerBudget()`` if none."""
        merged: dict[str, Any] = {}
        for pattern, layer in self.exceptions.items():
            if matches(pattern, name):
                defaults = LayerBudget()
                merged |= {
                    f.name: getattr(layer, f.name)
                    for f in fields(layer)
                    if getattr(layer, f.name) != getattr(defaults, f.name)
                }
        return LayerBudget(**merged)

    def weight_bits(self, layer: str) -> tuple[int, int]:
        """(b_l, b_u) of a layer's weight quantizer, in bits."""
        return self.layer(layer).bit_range or self.bit_range

    def activation_bits(self, layer: str) -> tuple[int, int]:
        """(b_l, b_u) of a layer's input quantizer, in bits."""
        return self.layer(layer).activation_bit_range or self.activation_bit_range

    def check_names(self, names: Iterable[str]) -> None:
        """Check that every exception names something.

        Args:
            names: layer and parameter paths of the model; the modules above them count too.

        Raises:
            BudgetError: a pattern that matches none of them.
        """
        known = dict.fromkeys(path for name in names for path in paths_of(name))
        for pattern in self.exceptions:
            if not any(fnmatchcase(path, pattern) for path in known):
                near = get_close_matches(pattern, list(known), n=3, cutoff=0.4)
                raise BudgetError(
                    "Budget: an exception matches no layer.", at=f"exceptions[{pattern!r}]",
                    expected="a whole layer or module path, * and ? allowed", got=repr(pattern),
                    hint=f"did you mean {' or '.join(map(repr, near))}?" if near else f"one of {', '.join(list(known)[:4])} ...",
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values; :meth:`from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Budget:
        """Build a budget from :meth:`to_dict`; lists may stand for tuples, as JSON makes them."""
        exceptions = {pattern: LayerBudget(**layer) for pattern, layer in values.get("exceptions", {}).items()}
        return cls(**{**values, "exceptions": exceptions})
