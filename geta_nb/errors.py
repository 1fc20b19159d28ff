"""Every error and warning geta-nb raises on purpose: what happened, where, expected, got, and a line to try.

First module of the pipeline: it imports nothing of the package. Raised at the public boundary, before anything was changed.
"""

from __future__ import annotations


def _text(what: str, at: object, expected: object, got: object, hint: object) -> str:
    fields = {"at": at, "expected": expected, "got": got, "try": hint}
    return "\n".join([what, *(f"  {key + ':':<9} {value}" for key, value in fields.items() if value is not None)])


class GetaError(Exception):
    """Base of all errors of this package.

    Args:
        what: one sentence, ``"function: what went wrong."``.
        at: where: a dotted layer path, a file, a node; left out when it is the call itself.
        expected: what would have been right.
        got: what was there instead.
        hint: a line the reader can paste (shown as ``try:``).

    >>> print(GetaError("cut: nothing to cut.", expected="a group", got="none"))
    cut: nothing to cut.
      expected: a group
      got:      none
    """

    def __init__(
        self, what: str, *, at: object = None, expected: object = None, got: object = None, hint: object = None
    ) -> None:
        super().__init__(_text(what, at, expected, got, hint))
        self.what, self.at, self.expected, self.got, self.hint = what, at, expected, got, hint


class ConfigError(GetaError, ValueError):
    """An option has a value that makes no sense."""


class BitWidthError(ConfigError):
    """A bit width below 2, above 32, or a reversed range."""


class ScheduleError(ConfigError):
    """The four stages do not fit one another, or the run."""


class BudgetError(ConfigError):
    """A budget that is malformed or cannot be reached by this network."""


class InputError(GetaError, ValueError):
    """Example inputs or batches do not fit the model."""


class TraceError(GetaError, RuntimeError):
    """torch.export cannot see through the model."""


class PruningSpaceError(GetaError, ValueError):
    """There is no group that may be removed."""


class CalibrationError(GetaError, RuntimeError):
    """An activation quantizer is used before it has seen data."""


class NonFiniteError(GetaError, ArithmeticError):
    """NaN or infinity in a loss, gradient or weight; the step was refused."""


class CheckpointError(GetaError, ValueError):
    """A checkpoint of another model, budget or version."""


class ArtifactError(GetaError, ValueError):
    """A saved file is corrupt, truncated, or not ours."""


class MissingExtraError(GetaError, ImportError):
    """An optional dependency is not installed."""


class SubnetError(GetaError, RuntimeError):
    """The cut network does not compute what the masked one computes."""


class RunStateError(GetaError, RuntimeError):
    """A live run, or a graph, was asked for what its present state does not allow."""


class GetaWarning(UserWarning):
    """Base of all warnings of this package: the run goes on, but probably not to where it should. Arguments as for :class:`GetaError`."""

    def __init__(
        self, what: str, *, at: object = None, expected: object = None, got: object = None, hint: object = None
    ) -> None:
        super().__init__(_text(what, at, expected, got, hint))


class CollapseWarning(GetaWarning):
    """A layer is about to lose all its channels (heads, neurons) but one."""
