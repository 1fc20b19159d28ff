"""Do model and trace agree about where the quantizers stand? Checked once, when they have been attached. Last step of the analysis.

In: the model with its quantizers, its QADG, and example inputs. Out: nothing, or a clear error. The trace was made without quantizers, and
their branches were put where the graph reads the parameters and inputs. A forward that reads a parameter past its module's attribute
(``self.parameters()``) would not see x^Q, and everything that is read off the graph would be of another network.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from geta_nb.errors import TraceError
from geta_nb.graph import are_close, computed_dtypes, outputs_of, own_draws
from geta_nb.qadg.folded import QADG
from geta_nb.qadg.reads import reads_through
from geta_nb.qadg.retrace import trace_quantized
from geta_nb.quantizers import IDLE, Quantizer, Quantizers, standing_in

Factors = dict[Quantizer, float]


def check_agreement(
    model: nn.Module,
    qadg: QADG,
    quantizers: Quantizers,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    plain: list[Tensor] | None = None,
) -> None:
    """Check that the model's own forward uses each quantizer where the graph has its branch.

    One run may show it, where the outputs of the plain model are known. Else both run once with every quantizer replaced by a factor of
    its own. Where their outputs differ, or one does not run, torch's exporter traces the quantized model and has the last word. A model
    without values is not checked.

    Args:
        model, qadg, quantizers: what is to agree.
        args, kwargs: example inputs.
        plain: what the model gave for them before it had quantizers; None: nobody kept it.

    Raises:
        TraceError: a quantizer stands elsewhere, or nowhere, in the model's own trace; or it cannot be traced.
    """
    ours = dict.fromkeys((*quantizers.weights.values(), *quantizers.activations.values()))
    if not ours or any(parameter.is_meta for parameter in model.parameters()):
        return
    if plain is not None and reads_through(model, qadg, quantizers, args, kwargs, plain):
        return
    factors = {quantizer: 0.75 + 0.5 * (i + 1) / (len(ours) + 1) for i, quantizer in enumerate(ours)}
    if not _run_alike(model, qadg, quantizers, factors, args, kwargs):
        _ask_exporter(model, qadg, quantizers, args, kwargs)


def _run_alike(
    model: nn.Module, qadg: QADG, quantizers: Quantizers, factors: Factors, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Whether model and graph give the same with a factor in place of each quantizer; what they draw at random is the same for both."""
    try:
        with standing_in({quantizer: partial(torch.mul, other=factor) for quantizer, factor in factors.items()}), own_draws(seed=0):
            wanted = outputs_of(model, args, kwargs)
        with own_draws(seed=0):
            found = _Factored(qadg, quantizers, factors).outputs(args, kwargs)
    except Exception:  # of the user's own code, or of sizes that the trace is bound to
        return False
    return are_close(found, wanted, inside=computed_dtypes(qadg.trace.module))


class _Factored(fx.Interpreter):
    """Runs a graph with a factor in place of each branch of ours."""

    def __init__(self, qadg: QADG, quantizers: Quantizers, factors: Factors) -> None:
        super().__init__(qadg.trace.module)
        self._inside: dict[str, str] = {}  # node of a branch -> its exit
        self._scales: dict[str, tuple[fx.Node, float]] = {}  # exit -> entry and factor
        self._scaled: dict[str, Tensor] = {}
        nodes = {node.name: node for node in qadg.trace.module.graph.nodes}
        for branch in qadg.branches:
            if (layer := qadg.layers.get(branch.exit)) is not None:
                quantizer = quantizers.weights[layer] if branch.kind == "attached" else quantizers.activations[layer]
                self._scales[branch.exit] = nodes[branch.entry], factors[quantizer]
                self._inside.update(dict.fromkeys(branch.nodes, branch.exit))

    def outputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """Return the output tensors, flattened."""
        flat = fx_pytree.tree_flatten_spec((args, kwargs), self.module._in_spec)  # type: ignore[arg-type]
        with torch.no_grad():
            out = self.run(*flat, enable_io_processing=False)
        return [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]

    def run_node(self, n: fx.Node) -> Any:
        """Skip what lies in a branch of ours; its exit gives the entry times the factor."""
        end = self._inside.get(n.name)
        if end is None:
            return super().run_node(n)
        if end not in self._scaled:  # at the first node: the interpreter forgets the entry after the last that reads it
            entry, factor = self._scales[end]
            self._scaled[end] = self.env[entry] * factor
        return self._scaled.pop(end) if n.name == end else None


def _ask_exporter(model: nn.Module, qadg: QADG, quantizers: Quantizers, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    seen = trace_quantized(model, args, kwargs, quantizers)
    if seen.summary() == qadg.summary():
        return  # the numbers differ for another reason: a device that rounds, or draws at random
    apart = sorted(_links(seen) ^ _links(qadg))
    idle = [name.removesuffix(".input_quantizer") for name, why in quantizers.excluded.items() if why == IDLE]
    layer = next((path for path, *_ in apart if path), next(iter(idle), ""))
    where = dict.fromkeys(f"{path or type(model).__name__} ({operator})" for path, operator, *_ in apart[:5])
    raise TraceError(
        "GETA: the model's forward does not use its quantized parameters and inputs where its graph reads them.",
        at=", ".join(where) or type(model).__name__,
        expected="parameters that are read as attributes of their module (self.weight), inputs that a module does not overwrite",
        got="another graph where the quantized model is traced",
        hint=f"gt.QuantConfig(skip=({f'{layer}*'!r},)), or change that part of the forward",
    )


def _links(qadg: QADG) -> set[tuple[str, ...]]:
    """Return each edge of a graph as what stands at its ends, quantizers too."""
    kinds = {v.name: (v.module_path, v.operator, v.weight_quantizer or "", v.input_quantizer or "") for v in qadg.vertices}
    return {(*kinds[end], *kinds[start]) for start, end in qadg.edges}
