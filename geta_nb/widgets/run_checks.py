"""What the arguments of a run, and of a widget, have to be; wrong ones are refused before anything starts."""

from __future__ import annotations

from geta_nb.errors import ConfigError, InputError
from geta_nb.geta import GETA


def facade(geta: object, who: str) -> GETA:
    """Return what a widget shows, or raise :class:`InputError` where it is no ``GETA``; ``who`` is the public name of the widget."""
    if isinstance(geta, GETA):
        return geta
    raise InputError(f"{who}: not a network that was analysed.", expected="a gt.GETA", got=type(geta).__name__)


def is_factory(optimizer: object) -> bool:
    """Whether this makes an optimizer rather than being one."""
    return callable(optimizer) and not hasattr(optimizer, "progress")


def check_arguments(step: object, optimizer: object, total_steps: object, evaluate: object, every: object, first_step: object) -> None:
    """Raise :class:`ConfigError` for an argument that makes no sense."""
    if not callable(step):
        raise ConfigError("LiveRun: step is a function of the step's number.", got=type(step).__name__, hint="LiveRun(step, ...)")
    if evaluate is not None and not callable(evaluate):
        raise ConfigError("LiveRun: evaluate is a function without arguments.", got=type(evaluate).__name__)
    if not callable(getattr(optimizer, "progress", None)) and not is_factory(optimizer):
        raise ConfigError(
            "LiveRun: the optimizer cannot say how far it is.", expected="what geta.qasso(...) returned", got=type(optimizer).__name__,
            hint="geta.qasso(torch.optim.AdamW, budget=..., schedule=...)",
        )
    for name, value, least in (("total_steps", total_steps, 1), ("every", every, 1), ("first_step", first_step, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"LiveRun: {name} is a count.", expected=f"a whole number >= {least}", got=repr(value))
    if first_step > total_steps:  # type: ignore[operator]
        raise ConfigError("LiveRun: first_step lies behind the end.", expected=f"at most {total_steps}", got=repr(first_step))
