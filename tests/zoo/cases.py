"""One net of the zoo in float64 and its GETA in each mode: made when first asked for, shared by all tests of that net.

Comes in: a name. Goes out: a :class:`Case`. Only the last one is kept; ``tests.schedule`` runs the tests of a net one after another, in
whichever files they are. A test leaves a case as it found it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import nn

import geta_nb as gt
from tests.zoo import laws
from tests.zoo.catalogue import ZOO, randomise
from tests.zoo.odd_nets import ODD

Made = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


class Case:
    """A net, and its GETA in each mode; ``made`` builds the net and its inputs anew."""

    def __init__(self, made: Callable[[], Made]) -> None:
        self.made = made

    def _geta(self, mode: str) -> gt.GETA:
        model, args, kwargs = self.made()
        return laws.geta_of(model, args, kwargs, mode)

    @cached_property
    def plain(self) -> gt.GETA:
        """Without quantizers."""
        return self._geta("plain")

    @cached_property
    def weights(self) -> gt.GETA:
        """With quantized weights."""
        return self._geta("weights")

    @cached_property
    def both(self) -> gt.GETA:
        """With quantized weights and inputs."""
        return self._geta("both")

    @cached_property
    def channel(self) -> gt.GETA:
        """With quantized weights, a step for each of their channels, and quantized inputs."""
        return self._geta("channel")


@lru_cache(maxsize=1)
def case_of(name: str) -> Case:
    """Return the case of a net of the zoo."""
    return Case(ZOO[name].double)


@lru_cache(maxsize=1)
def odd_case(name: str) -> Case:
    """Return the case of an odd net."""

    def made() -> Made:
        torch.manual_seed(0)
        model = randomise(ODD[name].build()).double().eval()
        args = tuple(torch.randn(2, *shape, dtype=torch.float64) if shape else torch.randint(0, 20, (2, 5)) for shape in ODD[name].shapes)
        return model, args, {}

    return Case(made)
