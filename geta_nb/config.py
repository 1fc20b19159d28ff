"""What is quantized, and how: the options of :class:`~geta_nb.geta.GETA`. Comes in from the user, goes to the room ``quantizers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geta_nb.errors import BitWidthError, ConfigError
from geta_nb.views import Shown

MIN_BITS = 2
"""The smallest signed width: a sign bit and one level bit."""

MAX_BITS = 32
"""The widest: what an unquantized operand counts."""

GRANULARITIES = ("tensor", "channel")


def check_bit_range(name: str, bits: object) -> tuple[int, int]:
    """Return ``bits`` as two integers.

    Args:
        name: what the range belongs to, for the message.
        bits: a pair (lower, upper), in bits, sign included.

    Raises:
        BitWidthError: not two integers with 2 <= lower <= upper <= 32.
    """
    pair = tuple(bits) if isinstance(bits, (tuple, list)) else (bits,)
    integers = [int(b) for b in pair if isinstance(b, int) and not isinstance(b, bool)]
    if len(pair) != 2 or len(integers) != 2 or not MIN_BITS <= integers[0] <= integers[1] <= MAX_BITS:
        raise BitWidthError(
            f"{name}: a bit range is two whole numbers, the lower one first.",
            expected=f"{MIN_BITS} <= lower <= upper <= {MAX_BITS}",
            got=repr(bits),
            hint=f"{name}=(4, 16)",
        )
    return integers[0], integers[1]


def check_patterns(name: str, patterns: object) -> tuple[str, ...]:
    """Return ``patterns`` as a tuple of strings; a bare string is an error, since it would be read letter by letter."""
    if isinstance(patterns, str) or not isinstance(patterns, (tuple, list, set, frozenset)):
        raise ConfigError(
            f"{name}: expected a sequence of layer patterns.", got=repr(patterns), hint=f"{name}=({str(patterns)!r},)"
        )
    items = sorted(patterns) if isinstance(patterns, (set, frozenset)) else list(patterns)
    bad = [p for p in items if not isinstance(p, str) or not p]
    if bad:
        raise ConfigError(f"{name}: a pattern is a non-empty string.", got=repr(bad[0]), hint=f'{name}=("head.*",)')
    return tuple(items)


@dataclass(frozen=True)
class QuantConfig(Shown):
    """Which tensors get quantizers, and how they start.

    Args:
        weights: quantize weights.
        activations: quantize the inputs of layers too; needs ``geta.calibrate`` before training.
        initial_bits: bit width of every quantizer at the start, sign included, 2 to 32.
        learn_exponent: let the non-linearity t of weight quantizers train (else it stays 1).
        learn_activation_exponent: the same for activations, where t != 1 costs speed at run time.
        granularity: of weights: ``"tensor"``: one step and clip value; ``"channel"``: one for each output channel, at one bit width a layer
            (tables of embeddings, and matrices that are tied to one, keep a single one).
        signed: whether codes of inputs may be negative: ``"auto"``: where the graph, or what calibration sees, says that inputs are
            never below zero, no bit is spent on a sign; True: everywhere (the paper).
        narrow_range: signed codes are symmetric about zero (the paper), which leaves one of the 2**b unused; else there is one more below.
        skip: patterns of whole layer paths (``fnmatch``) that stay unquantized.
        compile: let torch's compiler build the quantizers' backward pass: less time a step on tensors of more than 32k elements, after
            half a minute at the first one. Needs a C++ compiler and its cache folder (``TORCHINDUCTOR_CACHE_DIR``, else a temporary one).

    Raises:
        ConfigError: an option of the wrong type.
        BitWidthError: ``initial_bits`` outside 2 .. 32.

    >>> QuantConfig(activations=True).initial_bits
    16
    """

    weights: bool = True
    activations: bool = False
    initial_bits: int = 16
    learn_exponent: bool = True
    learn_activation_exponent: bool = False
    skip: tuple[str, ...] = ()
    compile: bool = False
    granularity: str = "tensor"
    signed: bool | str = "auto"
    narrow_range: bool = False

    def __post_init__(self) -> None:
        for name in ("weights", "activations", "learn_exponent", "learn_activation_exponent", "compile", "narrow_range"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(
                    f"QuantConfig: {name} is a switch.", expected="True or False", got=repr(getattr(self, name))
                )
        if self.granularity not in GRANULARITIES:
            expected, got = " or ".join(map(repr, GRANULARITIES)), repr(self.granularity)
            raise ConfigError("QuantConfig: no such granularity.", expected=expected, got=got, hint='granularity="channel"')
        if self.signed is not True and self.signed != "auto":
            got = repr(self.signed)
            raise ConfigError("QuantConfig: signed is of the wrong kind.", expected="'auto' or True", got=got, hint='signed="auto"')
        bits = self.initial_bits
        if not isinstance(bits, int) or isinstance(bits, bool) or not MIN_BITS <= bits <= MAX_BITS:
            raise BitWidthError(
                "QuantConfig: initial_bits is out of range.",
                expected=f"a whole number, {MIN_BITS} <= initial_bits <= {MAX_BITS}",
                got=repr(bits),
                hint="QuantConfig(initial_bits=16)",
            )
        object.__setattr__(self, "skip", check_patterns("skip", self.skip))

    @classmethod
    def paper(cls, **options: Any) -> QuantConfig:
        """Return the paper's quantizers: one range a tensor, symmetric signed codes for weights and inputs; with ``options`` replaced.

        With ``geta.qasso(..., rules="paper")`` their ranges are never fitted anew either. Source: Qu et al. 2025, arXiv:2502.16638.

        >>> QuantConfig.paper(activations=True).signed
        True
        """
        return cls(**{"granularity": "tensor", "signed": True, "narrow_range": True, **options})
