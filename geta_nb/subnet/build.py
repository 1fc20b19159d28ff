"""The subnet: every group that is exactly zero is cut, and what is left computes what the masked network computes.

Comes in: a trained network with its groups. Goes out: a smaller ``nn.Module``: the model's own classes where these, cut, still compute
the same; else the cut graph. Stage 7, before the report and the file.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from geta_nb.cost import Totals
from geta_nb.errors import GetaError, SubnetError
from geta_nb.graph import InputSizes, agree_in_float64, are_close, computed_dtypes, max_difference, outputs_of
from geta_nb.groups import BoolArray, GroupTable
from geta_nb.qadg import Analysis, Graphed, graph_at_any_size
from geta_nb.quantizers import (
    Quantizer,
    Quantizers,
    canonical_name,
    fake_quantize,
    own_parameters,
    parameter_tensors,
)
from geta_nb.subnet.any_size import same_space, suited, take_sizes
from geta_nb.subnet.candidates import Candidates
from geta_nb.subnet.cut import Cut, Pair
from geta_nb.subnet.finite import check_finite
from geta_nb.subnet.folding import fold_constants
from geta_nb.subnet.formats import WeightFormat, nearly_whole, set_format, weight_format
from geta_nb.subnet.graph_net import GraphNet, follow_model, input_sizes
from geta_nb.subnet.modes import what_differs
from geta_nb.subnet.native import changed_numbers, cut_native
from geta_nb.subnet.plain_weights import dense_twin, with_plain_weights
from geta_nb.subnet.rescaling import in_float64, rescale_norms
from geta_nb.subnet.rewrite import cut_graph
from geta_nb.subnet.values import Values
from geta_nb.views import Shown


@dataclass(frozen=True)
class CutFacts:
    """What was measured when a subnet was cut; the report is made of it.

    Attributes:
        space: fingerprint of the pruning space that was cut.
        removed: indices of the groups that are gone.
        zero_groups: groups that were zero; more than are gone where rounding kept some.
        max_abs_difference: largest difference to the masked model on the example inputs.
        weight_bits: layer -> bits at the time.
        activation_bits: the same of inputs.
        round_to: what the channels of each family were rounded up to a multiple of.
        rounded: indices of the zero groups that were kept for it.
    """

    space: str
    removed: tuple[int, ...]
    zero_groups: int
    max_abs_difference: float
    weight_bits: dict[str, int | float]
    activation_bits: dict[str, int | float]
    round_to: int = 1
    rounded: tuple[int, ...] = ()


@dataclass(repr=False)
class SubnetInfo(Shown):
    """What a subnet knows of how it was made; plain data that copies and pickles with it.

    Attributes:
        kind: "native" (the model's own classes) or "graph".
        formats: own parameter name -> format of its codes.
        activation_formats: layer -> format of its quantized input.
        graph: the cut graph of a native subnet, which shares its tensors (for a graph subnet it is the subnet itself: None).
        dense: costs of the dense fp32 network it came from, the denominator of a second compression too; None when read from a file.
        facts: what was measured at the cut; None when read from a file.
        example: positional and keyword inputs on which the graph of a native subnet is traced anew, for every size, when it leaves the
            package; None for a graph subnet, which is for every size as it is.
        sizes: which sizes of inputs a graph subnet is for; a native one takes what its classes take.
        widths: of a native subnet: module path -> attribute that is a number -> its value, where it is not that of the dense network;
            None of a graph subnet.
        whole: of a native subnet: name of a parameter or buffer -> shape in the dense network, where it was cut.
        dynamic: whether it leaves the package for every size, unless another is asked for.
    """

    kind: str
    formats: dict[str, WeightFormat]
    activation_formats: dict[str, WeightFormat] = field(default_factory=dict)
    graph: fx.GraphModule | None = None
    dense: Totals | None = None
    facts: CutFacts | None = None
    example: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    sizes: InputSizes | None = None
    widths: dict[str, dict[str, Any]] | None = None
    whole: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dynamic: bool = True


def restore_formats(model: nn.Module, quantizers: Quantizers) -> None:
    """Let the quantizers of a subnet that is compressed again start from the codes it has, not from fresh 16-bit ranges, and train.

    Where a quantizer has one range and the codes have one a channel, it keeps its fresh range.
    """
    info = getattr(model, "geta_info", None)
    if not isinstance(info, SubnetInfo):
        return
    for name, form in info.formats.items():
        layer = quantizers.parameter_layer.get(name)
        if layer is not None and quantizers.is_fresh(layer):
            set_format(quantizers.weights[layer], form)
    for quantizer in quantizers.activations.values():
        quantizer.step_size.requires_grad_(True)
        quantizer.clip_max.requires_grad_(True)


def dense_totals(model: nn.Module) -> Totals | None:
    """Return the costs of the dense network that a subnet came from, None for any other module."""
    info = getattr(model, "geta_info", None)
    return info.dense if isinstance(info, SubnetInfo) else None


def fingerprint(table: GroupTable) -> str:
    """Return a short text that tells one pruning space from another."""
    parts = [str(table.n_groups), *table.family_names, table.family_of.tobytes().hex(), table.group_size.tobytes().hex()]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def build_subnet(
    model: nn.Module,
    analysis: Analysis,
    quantizers: Quantizers | None,
    alive: BoolArray,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    zero_groups: int,
    rounded: tuple[int, ...] = (),
    round_to: int = 1,
    dynamic: bool = True,
) -> nn.Module:
    """Return ``model`` without the groups that do not live; the model itself is not changed.

    Args:
        model: the network as it is trained.
        analysis: its trace, labels, groups and costs.
        quantizers: what is quantized; None: nothing.
        alive: groups that stay, [G]; more do where a tensor would be left without an index.
        args, kwargs: example inputs on which results are compared.
        zero_groups: groups that are zero, for the report.
        rounded: those of them that live so that channels are a multiple of ``round_to``, for the report.
        round_to: that number.
        dynamic: a graph is for every size that the network takes, where that can be; else for the example's, the batch axis aside.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
        SubnetError: the cut network computes something else, which is a defect of this package.
    """
    args, kwargs = suited(model, args, kwargs)
    parameters = parameter_tensors(model)
    weights, inputs = (quantizers.weights, quantizers.activations) if quantizers is not None else ({}, {})
    check_finite(parameters, {**weights, **{f"{layer} (input)": quantizer for layer, quantizer in inputs.items()}})
    buffers = dict(model.named_buffers(remove_duplicate=False))

    def cut_with(found: Graphed, alive: BoolArray = alive) -> tuple[Cut, Values, GraphNet]:
        plain = with_plain_weights(model, found, parameters, buffers)
        cut = Cut(plain.state, found.table, alive, computed=plain.computed).filled()
        values = Values(plain.parameters, plain.buffers, partial(_quantized, quantizers), partial(_quantized, quantizers, cut=cut))
        fold_constants(cut, found.trace.module, found.names, values, {**parameters, **buffers}, (args, kwargs))
        rescale_norms(cut, found.names, values)
        twins = {layer: copy.deepcopy(quantizer) for layer, quantizer in inputs.items()}
        graph = cut_graph(cut, found.qadg, found.names, values.sources, twins, finish=values.finish)
        follow_model(graph, found.trace.module, found.names, {**parameters, **buffers})
        return cut, values, graph

    cut, values, graph = cut_with(analysis)
    reference, found = outputs_of(model, args, kwargs), outputs_of(graph, args, kwargs)
    exact = bool(analysis.table.exact[~cut.alive].all())  # norms over fewer channels give other numbers, which are reported
    inside = computed_dtypes(analysis.trace.module)
    if exact and not (are_close(found, reference, inside=inside) or _agree_exactly(graph, cut, model, quantizers, args, kwargs)):
        raise SubnetError(
            "construct_subnet: the cut graph does not compute what the masked model computes.",
            at=type(model).__name__, expected="equal outputs on the example inputs",
            got=f"a difference of {max_difference(found, reference):.3g}", hint="please report the model; nothing was changed",
        )
    outputs, sizes = [found], analysis.trace.sizes

    def uncut() -> tuple[nn.Module, nn.Module]:
        return dense_twin(model), cut_with(analysis, np.ones_like(alive))[-1]

    native = None
    if not isinstance(model, GraphNet):
        candidates = Candidates(graph, sizes, args, kwargs, uncut)

        def same(candidate: nn.Module) -> bool:
            outputs.append(outputs_of(candidate, args, kwargs))
            return are_close(outputs[-1], found) and candidates.admit(candidate)

        native = native_subnet(model, graph, cut.sizes, same)
    if native is None:

        def as_before(net: nn.Module) -> bool:
            now = outputs_of(net, args, kwargs)
            close = are_close(now, found) or (exact and are_close(now, reference, inside=inside))
            return close or agree_in_float64(net, graph, args, kwargs)

        wide = _widened(model, analysis, cut_with, args, kwargs, as_before) if dynamic else None
        if wide is not None:
            (cut, values, graph), sizes = wide
        take_sizes(graph, sizes, args, kwargs, lambda *given: exact and _agrees(graph, cut, model, quantizers, *given, inside=inside))
        graph._differs = what_differs(model, args, kwargs)
    else:
        graph._input_sizes = sizes
    result: nn.Module = graph.train(model.training and not graph._differs) if native is None else native
    bits = [{layer: nearly_whole(float(q.bit_width())) for layer, q in table.items()} for table in (weights, inputs)]
    difference = max_difference(found if native is None else outputs[-1], reference)
    for module in result.modules():
        if isinstance(module, Quantizer):  # its numbers are in the formats: a subnet that is tuned on must not move them
            module.requires_grad_(False)
    removed = tuple(int(i) for i in np.flatnonzero(~cut.alive))
    layer_of = {**quantizers.parameter_layer, **quantizers.computed} if quantizers is not None else {}
    whole = {**parameters, **buffers, **values.sources}
    first = {id(tensor): name for name, tensor in reversed(whole.items())}  # of tied names the first one has the labels
    result.geta_info = SubnetInfo(  # type: ignore[assignment]
        kind="graph" if native is None else "native",
        formats={
            name: weight_format(weights[layer], partial(cut.slice, first[id(whole[name])]))
            for name, layer in layer_of.items()
            if not values.changed(name)
        },
        activation_formats={layer: weight_format(quantizer) for layer, quantizer in inputs.items()},
        graph=None if native is None else share_tensors(graph, native),
        dense=analysis.cost.dense,
        facts=CutFacts(fingerprint(analysis.table), removed, zero_groups, difference, bits[0], bits[1], round_to, rounded),
        example=None if native is None else (args, kwargs),
        sizes=input_sizes(graph) if native is None else None,
        widths=_widths(model, native) if native is not None else None,
        whole=_whole_shapes(model, whole, native) if native is not None else {},
        dynamic=dynamic,
    )
    return result


def _widths(model: nn.Module, native: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the numbers that are not those of the dense network, of which the model may be a subnet itself."""
    info = getattr(model, "geta_info", None)
    earlier = info.widths if isinstance(info, SubnetInfo) else None
    found = {path: dict(values) for path, values in (earlier or {}).items()}
    own = {path for path, module in native.named_modules() if isinstance(module, Quantizer)}
    for path, values in changed_numbers(model, native).items():
        if path not in own:
            found.setdefault(path, {}).update(values)
    return found


def _whole_shapes(model: nn.Module, before: Mapping[str, Tensor], native: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes that tensors had in the dense network, of which the model may be a subnet itself, where they were cut."""
    info = getattr(model, "geta_info", None)
    earlier = info.whole if isinstance(info, SubnetInfo) else {}
    raw = (*native.named_parameters(remove_duplicate=False), *native.named_buffers(remove_duplicate=False))
    after = [(canonical_name(native, name), tensor) for name, tensor in raw]
    cut = {name: tuple(before[name].shape) for name, tensor in after if name in before and before[name].shape != tensor.shape}
    return {**cut, **earlier}


_CutWith = Callable[[Graphed], tuple[Cut, Values, GraphNet]]


def _widened(
    model: nn.Module,
    analysis: Analysis,
    cut_with: _CutWith,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    same: Callable[[nn.Module], bool],
) -> tuple[tuple[Cut, Values, GraphNet], InputSizes | None] | None:
    """Return the cut of a graph that is for every size, and what it is for; None where torch makes none, or another network."""
    try:
        wide = graph_at_any_size(model, args, kwargs, analysis)
        if wide.trace.sizes is None or not same_space(wide.table, analysis.table):
            return None
        made = cut_with(wide)
    except GetaError:
        return None
    return (made, wide.trace.sizes) if same(made[-1]) else None


def _quantized(quantizers: Quantizers | None, name: str, value: Tensor, *, cut: Cut | None = None) -> Tensor:
    """Return x^Q of a parameter, or of the part of it that a cut leaves; what has no quantizer as it is."""
    layer = quantizers.parameter_layer.get(name, quantizers.computed.get(name)) if quantizers is not None else None
    if quantizers is None or layer is None:
        return value
    quantizer = quantizers.weights[layer]
    if cut is None or quantizer.step_size.ndim == 0:
        found: Tensor = quantizer(value)
        return found
    step, clip = (cut.slice(name, number.detach()) for number in (quantizer.step_size, quantizer.clip_max))
    return fake_quantize(value, step, clip, quantizer.exponent.detach(), **quantizer.kind._asdict())


def _agrees(
    graph: nn.Module, cut: Cut, model: nn.Module, quantizers: Quantizers | None,
    args: tuple[Any, ...], kwargs: dict[str, Any], *, inside: Any,
) -> bool:
    """Whether a cut graph computes what the masked model computes, in its own type or in float64."""
    found, reference = outputs_of(graph, args, kwargs), outputs_of(model, args, kwargs)
    return are_close(found, reference, inside=inside) or _agree_exactly(graph, cut, model, quantizers, args, kwargs)


def _agree_exactly(
    graph: nn.Module, cut: Cut, model: nn.Module, quantizers: Quantizers | None,
    args: tuple[Any, ...], kwargs: dict[str, Any],
) -> bool:
    """Whether a cut graph and the masked model agree in float64: with the same numbers, x^Q as the model's own type rounds it."""
    try:
        wide, twin = in_float64(graph, cut, parameter_tensors(model)), copy.deepcopy(dense_twin(model))
    except (RuntimeError, TypeError):
        return False
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(_quantized(quantizers, name, parameter.detach()))
    return agree_in_float64(wide, twin, args, kwargs)


def native_subnet(
    model: nn.Module, graph: nn.Module, sizes: Mapping[str, set[Pair]], same: Callable[[nn.Module], bool]
) -> nn.Module | None:
    """Return the model's own classes around the parameters of ``graph``, or None when they cannot compute the same."""
    try:
        dense = dense_twin(model)
    except (RuntimeError, TypeError):
        return None  # a model that cannot be copied keeps its classes to itself
    values = {**dict(graph.named_parameters(remove_duplicate=False)), **dict(graph.named_buffers(remove_duplicate=False))}
    raw = (name for name, _ in (*dense.named_parameters(remove_duplicate=False), *dense.named_buffers(remove_duplicate=False)))
    plain = {name: canonical_name(dense, name) for name in raw}  # c.parametrizations.weight.original of others is c.weight in a graph
    new = {name: values[own] for name, own in plain.items() if own in values}
    return cut_native(dense, new_tensors=new, size_changes=sizes, check=same)


def share_tensors(graph: GraphNet, native: nn.Module) -> GraphNet:
    """Let a graph use the tensors of a module under the same names: no second copy of the weights, and training moves both."""
    for path, owner in graph.named_modules():
        for table in (owner._parameters, owner._buffers):
            for name in list(table):
                found = _tensor_at(native, f"{path}.{name}" if path else name)
                old = table[name]
                if found is not None and old is not None and type(found) is type(old) and found.shape == old.shape:
                    table[name] = found
    return graph


def _tensor_at(module: nn.Module, name: str) -> Tensor | None:
    path, _, leaf = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return None
    found = own_parameters(owner).get(leaf)
    return found if found is not None else owner._buffers.get(leaf)
