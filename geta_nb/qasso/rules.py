"""Which saliency and which way of forgetting the optimizer uses, with their constants. Options only; the maths is in their own files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from geta_nb.errors import ConfigError
from geta_nb.views import Shown

SALIENCIES = ("fisher", "taylor", "paper")
FORGETTINGS = ("uniform", "paper")
TIES = ("bound", "frozen", "never")


@dataclass(frozen=True)
class Rules(Shown):
    """How groups are scored and forgotten.

    Args:
        saliency: ``"fisher"``: the root of <x, g>^2, averaged over steps, in units of the family's mean; ``"taylor"``: |<x, g>|, averaged
            with its sign; ``"paper"``: five scores of one batch.
        forgetting: ``"uniform"``: a group fades linearly over its period; ``"paper"``: forget rate and step size from two cosines.
        sparing: how much the default saliency spares a family that has lost groups already, 0 .. 1: see ``saliency.family_share``.
        refit: fit ranges anew, by least squared error, whenever a bit width falls.
        tie: where the gradient of a step size goes that cannot become smaller: ``"bound"``: to the clip value and the exponent while the
            width stands at its upper bound; ``"frozen"``: once the width is fixed; ``"never"``: nowhere (the paper).
        weight_counts, input_counts: how often a rise of the loss by rounding weights or inputs counts beside one by removing groups, where
            bits and groups share one price, > 0.
        average_decay: decay of the moving average of <x, g> or its square, per step, 0 <= decay < 1.
        eta, zeta: the paper's constants of the descent law, 0 .. 1.
        shrink: the paper's beta, 0 < beta < 1.

    Raises:
        ConfigError: an unknown name, a constant out of range.

    >>> Rules.preset("paper").forgetting
    'paper'
    """

    saliency: str = "fisher"
    forgetting: str = "uniform"
    sparing: float = 0.5
    refit: bool = True
    tie: str = "bound"
    weight_counts: float = 2.0
    input_counts: float = 8.0
    average_decay: float = 0.98
    eta: float = 0.999
    zeta: float = 0.9
    shrink: float = 0.8

    def __post_init__(self) -> None:
        for name, known in (("saliency", SALIENCIES), ("forgetting", FORGETTINGS), ("tie", TIES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"Rules: no such {name}.", expected=" or ".join(map(repr, known)), got=repr(getattr(self, name)))
        for name in ("weight_counts", "input_counts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ConfigError(f"Rules: {name} is a factor.", expected="a number > 0", got=repr(value))
        limits = {"sparing": True, "average_decay": self.average_decay < 1, "eta": True, "zeta": True, "shrink": 0 < self.shrink < 1}
        for name, inside in limits.items():
            value = getattr(self, name)
            if not inside or not 0 <= value <= 1:
                raise ConfigError(f"Rules: {name} is out of range.", expected="a fraction", got=repr(value))

    @property
    def window(self) -> int:
        """Steps before the joint stage in which the average fills up: five time constants, after which 0.7 % of the start is left."""
        return math.ceil(5 / (1 - self.average_decay))

    @classmethod
    def preset(cls, name: str) -> Rules:
        """Return ``"default"`` (what measured best) or ``"paper"`` (the published saliency and forget rate).

        Raises:
            ConfigError: any other name.
        """
        if name not in ("default", "paper"):
            raise ConfigError("Rules: no such preset.", expected="'default' or 'paper'", got=repr(name), hint='rules="paper"')
        return cls() if name == "default" else cls(saliency="paper", forgetting="paper", refit=False, tie="never")

    @classmethod
    def of(cls, rules: Rules | str, saliency: str | None, forgetting: str | None) -> Rules:
        """Return ``rules`` (an object or a preset's name) with the two names replaced where given."""
        chosen = cls.preset(rules) if isinstance(rules, str) else rules
        return replace(chosen, saliency=saliency or chosen.saliency, forgetting=forgetting or chosen.forgetting)
