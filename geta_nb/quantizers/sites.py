"""Where quantizers could stand, and marks that let a trace of the plain model say where they would. Between the model and ``prepare``.

In: a module, quantized already or not, and a :class:`QuantConfig`. Out: candidates with what speaks against them; and while a trace is
made, the plain model, with a mark before each input that could be quantized and at each quantizer that is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import Tensor, nn

from geta_nb.config import QuantConfig
from geta_nb.graph import mark
from geta_nb.quantizers.foreign import marked_behind
from geta_nb.quantizers.matrices import Site, check_skip, find_matrices, held_aside, layer_name, paths_around, unfit
from geta_nb.quantizers.modules import ActivationQuantizer, Inputs, Quantizer, WeightQuantizer, with_first_tensor
from geta_nb.quantizers.parametrized import original_modules, weight_quantizer

WEIGHT, INPUT, CANDIDATE = "weight", "input", "candidate"
"""Kinds of marks: a weight's quantizer, an input's, and an input that could get one."""


@dataclass(frozen=True)
class Asked:
    """What a graph asks to be quantized.

    Attributes:
        weights: own names of parameters that a matrix operator reads.
        inputs: layers, by the name of their quantizer, whose input a matrix operator reads.
        never_negative: those of them whose input is never below zero.
        axes: own name of a parameter -> axis of the output channels of the operators that read it, None where they read it by rows;
            not known where it is not among them.
        computed: names of weights that others compute and a matrix operator reads; ``axes`` says the same of them.
        apart: name of such a weight -> why it cannot be had without what computes it.
    """

    weights: frozenset[str]
    inputs: frozenset[str]
    never_negative: frozenset[str] = frozenset()
    axes: Mapping[str, int | None] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    apart: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """One matrix that could carry a quantizer.

    Attributes:
        sites: the places where it stands, tied names together.
        reason: why no quantizer may stand there, or None.
        skipped: whether the user left it out.
    """

    sites: list[Site]
    reason: str | None
    skipped: bool

    @property
    def layer(self) -> str:
        """Name of the weight quantizer."""
        return layer_name(self.sites[0])

    @property
    def names(self) -> frozenset[str]:
        """All names of the parameter."""
        return frozenset(site.parameter for site in self.sites)

    @property
    def computed(self) -> bool:
        """Whether others compute the weight."""
        return self.sites[0].computed

    @property
    def quantizer(self) -> WeightQuantizer | None:
        """The weight quantizer that is there already."""
        return next((q for site in self.sites if (q := weight_quantizer(site.module, site.name)) is not None), None)

    def inputs(self, config: QuantConfig) -> Iterator[tuple[str, Site]]:
        """Yield (layer, place) of each input that has or could have a quantizer."""
        for site in self.sites:
            wanted = config.activations and not self.skipped and not isinstance(site.module, nn.Embedding | nn.EmbeddingBag)
            if site.name == "weight" and (wanted or input_quantizer(site) is not None):
                yield site.path or site.parameter, site


def input_quantizer(site: Site) -> ActivationQuantizer | None:
    """Return the input quantizer that is there already, or None."""
    present = getattr(site.module, "input_quantizer", None)
    return present if isinstance(present, ActivationQuantizer) else None


def find_candidates(model: nn.Module, config: QuantConfig) -> list[Candidate]:
    """Return every floating Parameter with two axes or more, whatever module owns it.

    Raises:
        ConfigError: a skip pattern that matches nothing.
    """
    matrices, held = find_matrices(model), held_aside(model)
    check_skip(config.skip, {path for path, _ in original_modules(model)}.union(*map(paths_around, matrices)))
    return [
        Candidate(
            sites,
            next((reason for reason in (unfit(site, held) for site in sites) if reason is not None), None),
            any(fnmatchcase(path, pattern) for path in paths_around(sites) for pattern in config.skip),
        )
        for sites in matrices
    ]


def computed_weights(model: nn.Module) -> dict[str, str]:
    """Return layer -> name of every matrix that parametrizations of the model's own compute; of a module under several paths the first."""
    return {layer_name(sites[0]): sites[0].parameter for sites in find_matrices(model) if sites[0].computed}


@contextmanager
def standing_in(quantizers: dict[Quantizer, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Let functions stand in for quantizers for a while."""
    try:
        for quantizer, function in quantizers.items():
            quantizer.stand_in = function
        yield
    finally:
        for quantizer in quantizers:
            quantizer.__dict__.pop("stand_in", None)


@contextmanager
def marked(model: nn.Module, config: QuantConfig) -> Iterator[None]:
    """Let ``model`` compute what it does without our quantizers, and mark where they stand, or could stand before an input.

    :func:`mark_of` reads their labels.
    """
    marks: dict[Quantizer, Callable[[Tensor], Tensor]] = {}
    hooks: dict[nn.Module, str] = {}
    with ExitStack() as stack:
        for candidate in find_candidates(model, config):
            if (quantizer := candidate.quantizer) is not None:
                marks[quantizer] = partial(mark, label=f"{WEIGHT}:{candidate.layer}")
            elif candidate.computed and candidate.reason is None and config.weights and not candidate.skipped:
                site = candidate.sites[0]
                stack.enter_context(marked_behind(site.module, site.name, f"{WEIGHT}:{candidate.layer}"))
            for layer, site in candidate.inputs(config) if candidate.reason is None else ():
                if (present := input_quantizer(site)) is not None:
                    marks.setdefault(present, partial(mark, label=f"{INPUT}:{layer}"))
                elif not hasattr(site.module, "input_quantizer"):
                    hooks.setdefault(site.module, f"{CANDIDATE}:{layer}")
        for module, label in hooks.items():
            stack.callback(module.register_forward_pre_hook(_marking(label), with_kwargs=True).remove)
        stack.enter_context(standing_in(marks))
        yield


def _marking(label: str) -> Callable[[nn.Module, Any, Any], Inputs | None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs | None:
        return with_first_tensor(args, kwargs, partial(mark, label=label))

    return hook


def mark_of(label: str) -> tuple[str, str]:
    """Return the kind and layer that a mark names.

    >>> mark_of("input:encoder.0")
    ('input', 'encoder.0')
    """
    kind, _, layer = label.partition(":")
    return kind, layer
