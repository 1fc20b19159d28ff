"""The five laws as checks that any net can be put through.

Comes in: a net and its inputs. Goes out: assertions. Masked and cut network are compared on the example inputs, on other numbers, and on
other batch sizes; the consumers' slices are overwritten too, which must change nothing.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten
from torch.utils.flop_counter import FlopCounterMode

import geta_nb as gt
from geta_nb.errors import InputError
from geta_nb.graph.comparison import wide_inside
from geta_nb.graph.nodes import operator_name
from geta_nb.graph.sizes import InputSizes
from geta_nb.quantizers import Quantizer, WeightQuantizer, parameter_tensors, standing_in
from geta_nb.subnet.graph_net import input_sizes

# float64: a net of depth n in another order of summation differs by about n * 1e-16 of its largest value; 1e-9 is the law's own number
RTOL = 1e-9
# float32: eps is 1.2e-7, a thousand summands deep: 1e-4, the law's number too; with quantized activations a rounding error can move one of
# them by a whole code, 2**-15 of its range, and some of these add up
RTOL_FLOAT32, RTOL_CODES = 1e-4, 1e-3
MODES: dict[str, gt.QuantConfig | None] = {"plain": None, "weights": gt.QuantConfig(), "both": gt.QuantConfig(activations=True)}
MODES["channel"] = gt.QuantConfig(activations=True, granularity="channel")


def geta_of(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, mode: str = "plain") -> gt.GETA:
    geta = gt.GETA(model, args, example_kwargs=kwargs or {}, quantize=MODES[mode])
    geta.calibrate([args])
    return geta


def tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def outputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """What a net gives; one in float64 in float64 all the way, also where it casts to float32 (the norms of language models)."""
    wide = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    with torch.no_grad(), wide_inside() if wide else contextlib.nullcontext():
        return tensors(model(*args, **kwargs))


def assert_same(left: list[Tensor], right: list[Tensor], rtol: float) -> None:
    assert [t.shape for t in left] == [t.shape for t in right]
    for a, b in zip(left, right, strict=True):
        assert a.isfinite().all(), "the masked network gives no numbers: the net under test is no test"
        torch.testing.assert_close(b, a, rtol=0, atol=rtol * max(float(a.abs().max()), 1e-3) if a.is_floating_point() else 0)


@contextmanager
def weights_restored(model: nn.Module) -> Iterator[None]:
    """Give a model the values back that it had."""
    kept = copy.deepcopy(model.state_dict())
    try:
        yield
    finally:
        model.load_state_dict(kept)


def slice_sets(geta: gt.GETA) -> set[frozenset[Any]]:
    """Each group as what it removes, whatever its number."""
    return {frozenset(group.slices) for group in geta.groups}


def some_groups(geta: gt.GETA, seed: int, share: float = 0.3) -> list[int]:
    """Draw a share of the groups of every family, at least one where the family has two, never all."""
    draw = random.Random(seed)
    chosen = []
    for family in geta.families:
        indices = [group.index for group in family.groups]
        count = min(max(round(share * len(indices)), 1), len(indices) - 1)
        chosen += draw.sample(indices, count)
    return sorted(chosen)


def check_partition(geta: gt.GETA) -> None:
    """Law 1: no (parameter, axis, index) is in two groups, and each slice exists."""
    shapes = {**{k: v.shape for k, v in parameter_tensors(geta.model).items()}, **{k: v.shape for k, v in geta.model.named_buffers()}}
    count = Counter((part.parameter, part.axis, index) for group in geta.groups for part in group.slices for index in part.indices)
    assert not [entry for entry, times in count.items() if times > 1]
    assert all(0 <= index < shapes[name][axis] for name, axis, index in count)


def check_same_graph(geta: gt.GETA) -> None:
    """Torch's own trace of the quantized model, its branches found by structure and folded, is the graph that the façade has."""
    assert geta.trace_quantized().summary() == geta.qadg.summary()


def check_exact_removal(geta: gt.GETA, chosen: list[int]) -> nn.Module:
    """Law 2: masked and cut network compute the same, and the report counts what is left. The model is as before afterwards."""
    model, args, kwargs = geta.model, geta.example_inputs, geta.example_kwargs
    with weights_restored(model):
        geta.mask(chosen)
        masked = outputs(model, args, kwargs)
        subnet = geta.construct_subnet()
        assert_same(masked, outputs(subnet, args, kwargs), RTOL)
        if geta.trace.dynamic_batch:
            for batch in (1, 3):
                other = _other_batch((args, kwargs), batch)
                assert_same(outputs(model, *other), outputs(subnet, *other), RTOL)
        _check_float32(geta, subnet, masked)
        count = sum(p.numel() for name, p in subnet.named_parameters() if "input_quantizer" not in name)
        assert geta.report(subnet).to_dict()["parameters"]["subnet"] == count
        _overwrite_consumers(geta, chosen)
        assert_same(masked, outputs(model, args, kwargs), RTOL)
    return subnet


def check_preview(geta: gt.GETA, subnet: nn.Module) -> None:
    """What ``preview`` says of a choice of groups is what the cut network has: its own parameters, and the products it really makes."""
    info = subnet.geta_info
    promised = geta.preview(gt.Budget(group_sparsity=0.0), groups=info.facts.removed)
    count = sum(p.numel() for name, p in subnet.named_parameters() if "input_quantizer" not in name)
    assert promised.parameters == count
    if geta.quantizers is None:
        assert promised.size_bytes == sum(p.numel() * p.element_size() for p in subnet.parameters())
    frozen = copy.deepcopy(subnet).requires_grad_(False)  # torch's counter fails on a parameter that a module is called with
    with FlopCounterMode(display=False) as counter, torch.no_grad(), fast_paths(False), Einsums(counter) as einsums:
        frozen(*geta.example_inputs, **geta.example_kwargs)
    if all(_is_counted(node) for node in geta.trace.module.graph.nodes):
        assert promised.macs_full == counter.get_total_flops() / 2 + einsums.uncounted


class Einsums(TorchFunctionMode):
    """Counts the products of those einsums of two operands of which torch's counter sees none.

    An einsum whose summed letters have one index each has nothing to sum: torch multiplies element by element, one product for each index
    of the letters that are left once those that one operand has alone are summed in it.
    """

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.uncounted, self._counter = 0, counter

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        operands = tensors(args) if getattr(func, "__name__", "").partition(".")[0] == "einsum" else []
        before = self._counter.get_total_flops() if operands else 0
        result = func(*args, **(kwargs or {}))
        if len(operands) == 2 and self._counter.get_total_flops() == before:
            self.uncounted += products_of_letters(args[0], *(operand.shape for operand in operands))
        return result


def products_of_letters(equation: str, left: torch.Size, right: torch.Size) -> int:
    """Return how many products an einsum of two operands makes, each named axis by axis."""
    given, _, output = equation.replace(" ", "").partition("->")
    first, second = given.split(",")
    assert output and len(first) == len(left) and len(second) == len(right), f"write out how {equation} is counted"
    sizes = [dict(zip(letters, shape, strict=True)) for letters, shape in ((first, left), (second, right))]
    met = (set(first) & set(second)) | set(output)
    return prod(max(one.get(letter, 1) for one in sizes) for letter in met)


def check_any_size(geta: gt.GETA, chosen: list[int], path: Path) -> InputSizes:
    """At two other sizes of everything that is free a saved and loaded network equals the masked one, or the error names the axis.

    Where the network itself takes no such size, anything but other numbers is right.
    """
    model, inputs = geta.model, (geta.example_inputs, geta.example_kwargs)
    with weights_restored(model):
        geta.mask(chosen)
        loaded = gt.load(gt.save(geta.construct_subnet(), path))
        sizes = input_sizes(loaded)
        assert sizes is not None
        example = sizes.read(tree_leaves(inputs))
        assert_same(outputs(model, *inputs), outputs(loaded, *inputs), RTOL)
        for other in ({name: size + 1 for name, size in example.items()}, {name: 2 * size for name, size in example.items()}):
            args, kwargs = sizes.resized(inputs, other)
            refused, found, expected = None, None, None
            with contextlib.suppress(RuntimeError, ValueError, IndexError, AssertionError):  # of a network that takes no such size
                expected = outputs(model, args, kwargs)
            try:
                found = outputs(loaded, args, kwargs) if expected is not None else None
            except InputError as error:
                refused = str(error.at)
            if found is not None:
                assert_same(expected, found, RTOL)
            assert refused is None or ", ax" in refused
        for name, axis, size in sizes.bound[:1]:
            with pytest.raises(InputError, match=f"input {name}, axis {axis}(?s:.)*expected: {size}\n"):
                loaded(*_one_more(inputs, sizes, name, axis)[0], **_one_more(inputs, sizes, name, axis)[1])
    return sizes


def _one_more(inputs: Any, sizes: InputSizes, name: str, axis: int) -> Any:
    """The inputs, one of them one longer along an axis."""
    leaves, spec = tree_flatten(inputs)
    at = next(place for place, item in enumerate(sizes.inputs) if item.name == name)
    leaves[at] = torch.cat([leaves[at], leaves[at].narrow(axis, 0, 1)], axis)
    return tree_unflatten(leaves, spec)


@contextmanager
def fast_paths(enabled: bool) -> Iterator[None]:
    """Let encoder layers take their fused path, or not: fused products are not counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _is_counted(node: Any) -> bool:
    """Whether torch counts the products of a node: none of the CPU's fused attention, of vectors and triples; of three in its own order."""
    if node.op != "call_function":
        return True
    operands = [item.meta.get("val") for item in node.all_input_nodes]
    vectors = any(isinstance(value, Tensor) and value.dim() == 1 for value in operands[:2])
    name = operator_name(node)
    if name == "einsum":
        return len(operands) == 2
    return name not in {"scaled_dot_product_attention", "_trilinear", "mv", "dot"} and not (name == "matmul" and vectors)


def check_second_compression(geta: gt.GETA, subnet: nn.Module) -> None:
    """A subnet can be compressed again, as exactly, as long as a family has more than one group left.

    Which groups it has may differ: an axis of one index has no choice; what one index tied together is free without it (the one key of
    many queries); and where heads can go in what is left, whole heads are the groups, not dimensions of all of them.
    """
    mode = next(name for name, config in MODES.items() if config == geta.config)
    again = geta_of(subnet, geta.example_inputs, geta.example_kwargs, mode)
    removed = set(subnet.geta_info.facts.removed)
    left = [sum(group.index not in removed for group in family.groups) for family in geta.families]
    assert len(again.groups) > 0 or max(left, default=0) < 2
    alive = np.array([index not in removed for index in range(len(geta.groups))], dtype=bool)
    before, now = (costs_at_four_bits(one, living) for one, living in ((geta, alive), (again, None)))
    assert now == pytest.approx(before, rel=1e-12), "what is left costs what it cost"
    check_partition(again)
    check_exact_removal(again, some_groups(again, seed=2))


def costs_at_four_bits(geta: gt.GETA, alive: Any) -> dict[str, float]:
    """What the network costs with all that is quantized at 4 bits."""
    bits = (dict.fromkeys(table, 4.0) for table in (geta.bit_widths(), geta.activation_bit_widths()))
    figures = geta.cost.evaluate(alive, *bits).figures()
    return {name: figures[name] for name in ("macs", "macs_full", "relative_bops", "relative_bops_full", "parameters")}


def _other_batch(inputs: Any, batch: int) -> Any:
    """The same inputs for another batch size, with other numbers where they are real numbers."""

    def change(tensor: Tensor) -> Tensor:
        rows = tensor[torch.arange(batch) % len(tensor)]
        return rows.flip(-1).contiguous() * 0.9 if tensor.is_floating_point() and tensor.ndim > 1 and tensor.shape[-1] > 1 else rows

    return tree_map_only(Tensor, change, inputs)


def _check_float32(geta: gt.GETA, subnet: nn.Module, masked: list[Tensor]) -> None:
    """The same in float32; with quantized activations, where codes flip, to twice what the masked network itself loses by float32.

    Each weight is rounded to its code once, in float64, for both sides: the cut network has numbers where the masked one has quantizers.
    These would choose again in float32, where |w / d| = k + 1/2 - e with e < k * 2**-24, some 1e-3 of a step at code 2**14, is rounded
    to k + 1/2 and may go to k + 1. That moves the weight by a whole step, 2**-15 of its range: 256 times float32's eps, in the reference
    alone. With one choice both sides start from the same float32 weights, and only sums in another order are left.
    """
    args, kwargs = tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, (geta.example_inputs, geta.example_kwargs))
    model = copy.deepcopy(geta.model)
    quantizers = _round_weights(geta, model)
    try:
        with standing_in(dict.fromkeys(quantizers, Tensor.detach)):
            expected = outputs(model.float(), args, kwargs)
    except RuntimeError:
        return  # a net that names float64 itself
    rtol = RTOL_FLOAT32
    if geta.quantizers and geta.quantizers.activations:
        pairs = [(a, b) for a, b in zip(masked, expected, strict=True) if a.is_floating_point() and a.any()]
        rtol = max([RTOL_CODES, *(2 * float((a - b).abs().max() / a.abs().max()) for a, b in pairs)])
    assert_same(expected, outputs(copy.deepcopy(subnet).float(), args, kwargs), rtol)


@torch.no_grad()
def _round_weights(geta: gt.GETA, model: nn.Module) -> list[Quantizer]:
    """Round the weights of a copy of the model as the model does; return the copy's quantizers that have nothing left to do."""
    tables = geta.quantizers
    if tables is not None:
        own = parameter_tensors(geta.model)
        for name, parameter in parameter_tensors(model).items():  # from the model's own: a tied weight is there under each of its names
            if name in tables.parameter_layer:
                parameter.copy_(tables.weights[tables.parameter_layer[name]](own[name]))
    return [module for module in model.modules() if isinstance(module, WeightQuantizer)]


@torch.no_grad()
def _overwrite_consumers(geta: gt.GETA, chosen: list[int]) -> None:
    """Write noise over the slices that only read the removed groups; not where they read a constant that the bias takes over."""
    parameters = parameter_tensors(geta.model)
    read = _weights_that_read_constants(geta)
    noise = torch.Generator().manual_seed(0)
    producing = {(part.parameter, part.axis) for group in geta.groups for part in group.producers}
    for index in chosen:
        for part in geta.groups[index].consumers:
            if part.parameter in parameters and (part.parameter, part.axis) not in producing and part.parameter not in read:
                tensor, rows = parameters[part.parameter], torch.tensor(part.indices)
                values = tensor.index_select(part.axis, rows)
                values = torch.randn(values.shape, generator=noise, dtype=values.dtype) * 0.1
                tensor.index_copy_(part.axis, rows, values)


def _weights_that_read_constants(geta: gt.GETA) -> set[str]:
    """Own names of the weights whose products with constants are folded into a bias."""
    found, nodes = set(), [fold.node.args[1] for fold in geta._analysis.state.findings.folds]
    while nodes:
        node = nodes.pop()
        found.add(geta._analysis.names.get(str(node.target), ""))
        nodes += node.all_input_nodes
    return found
