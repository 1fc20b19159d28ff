"""Make a network quantization-aware in place: a quantizer on every matrix, and on the input of every layer that owns one.

In: any ``nn.Module``, a :class:`QuantConfig`, and what the graph asks for. Out: the same object with the same Parameters, and a
:class:`Quantizers` that lists what was attached, gives parts of it up again and undoes all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import cast

from torch import Tensor, nn

from geta_nb.config import QuantConfig
from geta_nb.errors import ConfigError, NonFiniteError
from geta_nb.quantizers.adopted import Adopted
from geta_nb.quantizers.foreign import ComputedWeight, weight_value
from geta_nb.quantizers.matrices import Site, channel_axis, layer_name
from geta_nb.quantizers.modules import ActivationQuantizer, Quantizer, WeightQuantizer, quantize_input
from geta_nb.quantizers.parametrized import register, unregister, weight_quantizer
from geta_nb.quantizers.plain_state import stop_watching, watch_loading
from geta_nb.quantizers.sites import Asked, Candidate, find_candidates
from geta_nb.views import Shown

IDLE = "no matrix operator reads what it would give out"


class Quantizers(Shown):
    """What :func:`attach_quantizers` found and attached.

    A layer is named by its module path when ``weight`` is the only matrix of that module, else by the parameter's path
    (``"attn.in_proj_weight"``; ``"weight"`` for a root that is a layer itself). A quantizer of inputs is named by its module's path.

    Attributes:
        weights: {layer: quantizer}; tied parameters share one, under the first name.
        activations: {layer: quantizer}, each the submodule ``input_quantizer`` of its layer.
        parameter_layer: {original parameter name: layer of ``weights``}, tied names too.
        adapted: {layer of ``weights``: the low-rank terms of an adapter that are added to the parameter in front of it}.
        computed: {name of a weight that parametrizations of the model's own compute: layer of ``weights``}; none of ``parameter_layer``.
        taken_over: layers whose quantizer was there before this call.
        excluded: {parameter name: why it stays unquantized}.
        paths: {quantizer: dotted path of its module}, its first.
        finds_signs: calibration may find that inputs need no sign.
    """

    def __init__(self) -> None:
        self.weights: dict[str, WeightQuantizer] = {}
        self.activations: dict[str, ActivationQuantizer] = {}
        self.parameter_layer: dict[str, str] = {}
        self.adapted: dict[str, Adopted] = {}
        self.computed: dict[str, str] = {}
        self.taken_over: tuple[str, ...] = ()
        self.excluded: dict[str, str] = {}
        self.paths: dict[Quantizer, str] = {}
        self.finds_signs = False
        self._sites: dict[str, list[Site]] = {}
        self._owners: dict[str, Site] = {}

    def is_fresh(self, layer: str) -> bool:
        """Whether the weight quantizer of a layer is this call's own, whatever stood on its input before."""
        return layer in self.weights and all(site.new for site in self._sites[layer])

    def quantized_tensors(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor | ComputedWeight | Adopted]:
        """Return what each weight quantizer is given: layer -> the parameter, or what computes the weight when it is called."""
        named = {layer: parameters[name] for name, layer in reversed(list(self.parameter_layer.items())) if layer in self.weights}
        sites = {layer: self._sites[layer][0] for layer in self.computed.values()}
        return {**named, **{layer: ComputedWeight(site.module, site.name) for layer, site in sites.items()}, **self.adapted}

    def train(self, config: QuantConfig) -> None:
        """Let the numbers of all quantizers train, exponents as configured: who puts adapters into a model freezes all else."""
        for table, learns in ((self.weights, config.learn_exponent), (self.activations, config.learn_activation_exponent)):
            for quantizer in table.values():
                quantizer.step_size.requires_grad_(True)
                quantizer.clip_max.requires_grad_(True)
                quantizer.exponent.requires_grad_(learns)

    def detach_weight(self, layer: str) -> None:
        """Take the quantizer off this layer's parameter, under all its names.

        Raises:
            ConfigError: ``layer`` has no weight quantizer.
        """
        self._find(self.weights, layer)
        for site in reversed(self._sites[layer]):
            self._release(layer, site)

    def detach_activation(self, layer: str) -> None:
        """Take the quantizer off this layer's input.

        Raises:
            ConfigError: ``layer`` has no input quantizer.
        """
        self._find(self.activations, layer)
        module = self._owners.pop(layer).module
        del self.activations[layer], module.input_quantizer
        for key in [key for key, hook in module._forward_pre_hooks.items() if hook is quantize_input]:
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
        stop_watching(module)

    def undo(self) -> None:
        """Remove what this call attached: classes, Parameters, their order and hooks are as before. Quantizers taken over stay."""
        for layer in [layer for layer, owner in self._owners.items() if owner.new]:
            self.detach_activation(layer)
        for layer in reversed(list(self._sites)):
            self._drop(layer)

    def _drop(self, layer: str) -> None:
        for site in [site for site in reversed(self._sites.get(layer, [])) if site.new]:
            self._release(layer, site)
        self._forget_if_empty(layer)

    def _find(self, table: Mapping[str, object], layer: str) -> None:
        if layer not in table:
            near = get_close_matches(layer, list(table), n=1, cutoff=0.0)
            hint = near[0] if near else None
            raise ConfigError("detach: no quantizer there.", at=layer, expected="a layer with a quantizer", hint=hint)

    def _release(self, layer: str, site: Site) -> None:
        if weight_quantizer(site.module, site.name) is not None:
            unregister(site.module, site.name)
        for table in (self.parameter_layer, self.computed):
            table.pop(site.parameter, None)
        self._sites[layer] = [other for other in self._sites[layer] if other is not site]
        self._forget_if_empty(layer)

    def _forget_if_empty(self, layer: str) -> None:
        if not self._sites.get(layer, [None]):
            del self._sites[layer], self.weights[layer]

    def _add_weight(self, sites: list[Site], config: QuantConfig, asked: Asked | None) -> None:
        """Let all names of one parameter share one quantizer, the one that is there already or a new one."""
        layer = layer_name(sites[0])
        there = [weight_quantizer(site.module, site.name) for site in sites]
        quantizer = next((q for q in there if q is not None), None)
        if quantizer is None:
            weight, axis = weight_value(sites[0].module, sites[0].name), None
            if config.granularity == "channel":
                axis = channel_axis(sites, asked.axes if asked is not None else None)
            quantizer = WeightQuantizer.for_weight(
                weight, initial_bits=config.initial_bits, learn_exponent=config.learn_exponent, layer=layer, axis=axis,
                narrow_range=config.narrow_range,
            )
        else:
            self.taken_over += (layer,)
        quantizer.compiled = config.compile
        self.weights[layer], self._sites[layer] = quantizer, []
        for site, present in zip(sites, there, strict=True):
            if weight_quantizer(site.module, site.name) is None:  # a module under two names is registered once
                register(site.module, site.name, quantizer)
            self._sites[layer].append(site._replace(new=present is None))
            (self.computed if site.computed else self.parameter_layer)[site.parameter] = layer

    def _add_activation(self, layer: str, site: Site, config: QuantConfig, asked: Asked | None) -> None:
        module = site.module
        if any(owner.module is module for owner in self._owners.values()):
            return  # one module under two names
        present = getattr(module, "input_quantizer", None)
        if present is not None and not isinstance(present, ActivationQuantizer):
            self.excluded[f"{layer}.input_quantizer"] = "the model has an attribute of this name"
            return
        if present is None and asked is not None and layer not in asked.inputs:
            self.excluded[f"{layer}.input_quantizer"] = IDLE
            return
        if present is None:
            like = weight_value(module, site.name)
            never_negative = config.signed == "auto" and asked is not None and layer in asked.never_negative
            quantizer = ActivationQuantizer(
                like,
                initial_bits=config.initial_bits,
                learn_exponent=config.learn_activation_exponent,
                layer=layer,
                signed=not never_negative,
                narrow_range=config.narrow_range,
            )
            module.input_quantizer = quantizer.train(module.training)
            module.register_forward_pre_hook(quantize_input, with_kwargs=True)
            watch_loading(module)
        elif layer not in self.taken_over:
            self.taken_over += (layer,)
        self.activations[layer] = cast(ActivationQuantizer, module.input_quantizer)
        self.activations[layer].compiled = config.compile
        self._owners[layer] = site._replace(new=present is None)


def attach_quantizers(model: nn.Module, config: QuantConfig, asked: Asked | None = None) -> Quantizers:
    """Put quantizers on ``model``, in place.

    A weight quantizer goes on every floating Parameter with two axes or more that is asked for, whatever module owns it; with
    ``config.activations``, an input quantizer on every module that owns a matrix called ``weight`` and is no embedding. The Parameter
    objects stay the same, so optimizers built before keep working. Parameters that get none are listed in ``excluded``. A second call
    takes over what the first attached, asked for or not.

    Args:
        model: any module; a root that is itself a layer, ``fx.GraphModule`` and tied weights too.
        config: what to quantize; ``config.skip`` holds patterns of whole dotted paths of parameters, layers, or modules around them.
        asked: what the model's graph asks for; None: everything.

    Returns:
        The quantizers by layer. After an error the model is as it was.

    Raises:
        ConfigError: a skip pattern that matches nothing.
        NonFiniteError: a weight with NaN or infinity.
    """
    candidates, quantizers = find_candidates(model, config), Quantizers()
    quantizers.finds_signs = config.signed == "auto"
    try:
        for candidate in candidates:
            reason = candidate.reason or _attach_weight(quantizers, candidate, config, asked)
            if reason is None:
                for layer, site in candidate.inputs(config):
                    quantizers._add_activation(layer, site, config, asked)
            else:
                quantizers.excluded.update(dict.fromkeys((site.parameter for site in candidate.sites), reason))
    except BaseException:
        quantizers.undo()
        raise
    quantizers.paths = {part: path for path, part in model.named_modules() if isinstance(part, Quantizer)}
    return quantizers


def _not_asked(candidate: Candidate, asked: Asked | None) -> str | None:
    """Return why a graph has no use for a quantizer, or None."""
    if asked is None:
        return None
    if candidate.computed:
        names = [site.parameter for site in candidate.sites]
        return None if asked.computed.intersection(names) else next((asked.apart[name] for name in names if name in asked.apart), IDLE)
    return IDLE if candidate.names.isdisjoint(asked.weights) else None


def _attach_weight(quantizers: Quantizers, candidate: Candidate, config: QuantConfig, asked: Asked | None) -> str | None:
    """Attach or take over; return what the module has against it, after which it is as it was."""
    if candidate.quantizer is None:
        if candidate.skipped or not config.weights:
            return None
        if (why := _not_asked(candidate, asked)) is not None:
            quantizers.excluded.update(dict.fromkeys((site.parameter for site in candidate.sites), why))
            return None
    try:
        quantizers._add_weight(candidate.sites, config, asked)
    except NonFiniteError:
        raise
    except Exception as error:
        quantizers._drop(candidate.layer)
        return f"its module does not allow it: {error}"
    return None
