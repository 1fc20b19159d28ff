"""A model that others put low-rank adapters into: analysed as it is without them, and adopted with them. The façade's part.

In: a ``GETA`` whose model may have adapters. Out: its analysis; and the same model, in which they are part of the weights.

A part of the façade, stage 13.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from geta_nb import checks
from geta_nb.config import QuantConfig
from geta_nb.errors import ConfigError
from geta_nb.graph import check_inputs
from geta_nb.qadg import Analysis, analyse
from geta_nb.qasso import QASSO, Rules, ranks
from geta_nb.quantizers import Adopted, Quantizers, adapter_layers, adapter_parameters, adopt, adopted_in, without_adapters
from geta_nb.subnet import dense_totals, restore_formats


class Adaptable:
    """What of :class:`geta_nb.GETA` deals with adapters."""

    model: nn.Module
    config: QuantConfig | None
    example_inputs: tuple[Any, ...]
    example_kwargs: dict[str, Any]
    protect: tuple[str, ...]
    approximate_norms: bool
    quantizers: Quantizers | None
    _analysis: Analysis
    _optimizer: QASSO | None

    def _analyse(self) -> Quantizers:
        """Find out all about the model's own layers, and return the quantizers that they have from then on; after an error none is new."""
        model, config = self.model, QuantConfig(weights=False) if self.config is None else self.config  # pruning only: none is attached
        with without_adapters(model):
            check_inputs(model, self.example_inputs, self.example_kwargs)
            self._analysis = analyse(
                model, self.example_inputs, self.example_kwargs, config, protect=lambda name: checks.is_protected(name, self.protect),
                dense=dense_totals(model), approximate_norms=self.approximate_norms,
            )  # fmt: skip
            quantizers = self._analysis.quantizers
            try:
                restore_formats(model, quantizers)
                self._analysis.match_codes()
            except BaseException:
                quantizers.undo()
                raise
        return quantizers

    def adopt_adapters(self) -> tuple[str, ...]:
        """Let the low-rank adapters (LoRA, of ``peft``) around layers of the model be part of their weights; returns the weights' names.

        W + s B A goes through the quantizer and is what groups are judged by; what is zero stays zero; ``merge_and_unload`` writes the
        sum into W, and the network computes the same afterwards. To be called once adapters have been put into the model, before they
        train; ``qasso`` calls it, and so does a ``GETA`` of a model that has them.

        Raises:
            ConfigError: adapters that cannot be part of a weight, or that came in the middle of a run; nothing was changed.
        """
        run, here = self._optimizer, {path for path, _ in adapter_layers(self.model)}
        if run is not None and 0 < run.steps_done < run.schedule.cool_down_start and len(here) > len(adopted_in(self.model)):
            raise ConfigError(
                "adopt_adapters: adapters in the middle of a run, whose groups fade without them.", at=min(here),
                expected="adapters before geta.qasso(...), or once bits and groups are fixed", got=f"stage {run.stage}",
                hint=f"put them in after step {run.schedule.cool_down_start}",
            )  # fmt: skip
        return tuple(self._adopt())

    def _adopt(self, *, late: bool = True) -> dict[str, Adopted]:
        """Adopt what adapters there are; ``late``: they came after the quantizers."""
        found = adopt(self.model, self._analysis.table, late=late)
        if self.quantizers is not None:
            self.quantizers.adapted = {layer: found[name] for name, layer in self.quantizers.parameter_layer.items() if name in found}
        return found

    def _trained_adapters(self, rules: Rules) -> list[nn.Parameter]:
        """Adopt adapters for a run of the optimizer, and return what of them trains."""
        found = self._adopt()
        checks.check_rules_for_adapters(rules, found)
        if found and self.quantizers is not None:
            frozen = [layer for layer, quantizer in self.quantizers.weights.items() if not quantizer.step_size.requires_grad]
            if frozen and ranks.several():
                raise ConfigError(
                    "qasso: quantizers were frozen when adapters came, and what spreads gradients over ranks leaves out what is frozen.",
                    at=frozen[0], expected="adapters that came before the quantizers", got=f"{len(frozen)} frozen quantizers",
                    hint="gt.GETA(peft_model.get_base_model(), ...) after get_peft_model",
                )  # fmt: skip
            self.quantizers.train(self.config or QuantConfig())
        return list(dict.fromkeys(adapter_parameters(self.model).values()))
