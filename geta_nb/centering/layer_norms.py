"""Which modules are layer norms: those that compute one, whatever their class. In: a model and its graph. Out: what each normalises."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, fx, nn

from geta_nb.centering.norm import CenteredNorm, reference
from geta_nb.graph import module_path, shape_of, wide_inside

_EXACT = 1e-9  # float64: a formula in another order differs by some 1e-15
_USUAL = (1e-5, 1e-6, 1e-12, 1e-8, 1e-3)


@dataclass(frozen=True)
class LayerNorm:
    """A module that is a layer norm over the channels, and nothing else.

    Attributes:
        path: of the module.
        channels: D.
        eps: added to the variance.
        scale, shift: names of its parameters, "" where there is none.
        offset: what is added to its scale.
        channels_first: whether channels are axis 1; else the last.
        reads: the nodes that its calls normalise, with the axis of their channels.
        inside: all nodes that its calls ran.
    """

    path: str
    channels: int
    eps: float
    scale: str
    shift: str
    offset: float
    channels_first: bool
    reads: tuple[tuple[fx.Node, int], ...]
    inside: frozenset[fx.Node]

    def successor(self, module: nn.Module) -> CenteredNorm:
        """Return the norm that takes the place of ``module``, with its parameters, mode and hooks."""
        pairs = [(name, module._parameters[name]) if name else None for name in (self.scale, self.shift)]
        norm = CenteredNorm(self.channels, self.eps, *pairs, offset=self.offset, channels_first=self.channels_first)  # type: ignore[arg-type]
        norm.training = module.training
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(norm, name).update(getattr(module, name))
        return norm


def find_layer_norms(model: nn.Module, graph: fx.Graph) -> list[LayerNorm]:
    """Return the modules that compute a layer norm over their last axis or over axis 1, in the order of the graph.

    They are found by what they compute: on random numbers, large and small, in float64.
    """
    runs: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            runs.setdefault(module_path(node), []).append(node)
    found = []
    for path, nodes in runs.items():
        module = _submodule(model, path)
        if module is not None and not isinstance(module, CenteredNorm) and _may_be_one(module):
            norm = _layer_norm(path, module, nodes)
            if norm is not None:
                found.append(norm)
    return found


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path) if path else None  # what a root computes has no place to put a norm in
    except AttributeError:
        return None


def _may_be_one(module: nn.Module) -> bool:
    """Whether a module owns at most two vectors, and has none below it."""
    own = [parameter for parameter in module._parameters.values() if parameter is not None]
    below = [*module.parameters(), *module.buffers()]
    vectors = all(max(parameter.shape, default=0) == parameter.numel() for parameter in own)
    leaf = next(module.children(), None) is None
    return leaf and len(below) == len(own) <= 2 and vectors and not any(parameter.is_meta for parameter in own)


def _layer_norm(path: str, module: nn.Module, nodes: list[fx.Node]) -> LayerNorm | None:
    inside = frozenset(nodes)
    entries = dict.fromkeys(
        item for node in nodes for item in node.all_input_nodes if item not in inside and item.op != "get_attr" and shape_of(item)
    )
    shapes = {shape_of(node) for node in entries}
    if not entries or len({len(shape or ()) for shape in shapes}) != 1:
        return None
    shape = next(iter(shapes)) or ()
    names = [name for name, parameter in module._parameters.items() if parameter is not None]
    sizes = {parameter.numel() for parameter in module._parameters.values() if parameter is not None}
    for axis in dict.fromkeys((len(shape) - 1, 1)):
        if len(shape) < 2 or sizes - {shape[axis]} or {(s or ())[axis] for s in shapes} != {shape[axis]}:
            continue
        form = _form(module, shape, axis, names, _epsilons(module, nodes))
        if form is not None:
            first = axis != len(shape) - 1
            return LayerNorm(path, shape[axis], *form, first, tuple((node, axis) for node in entries), inside)
    return None


def _epsilons(module: nn.Module, nodes: Iterable[fx.Node]) -> list[float]:
    """Numbers that could be the one that is added to the variance: in the graph, among the attributes, usual ones."""
    numbers = [item for node in nodes for item in node.args if type(item) is float]
    numbers += [value for value in vars(module).values() if type(value) is float]
    return [number for number in dict.fromkeys((*numbers, *_USUAL)) if 0 < number < 0.1]


def _form(
    module: nn.Module, shape: tuple[int, ...], axis: int, names: list[str], epsilons: list[float]
) -> tuple[float, str, str, float] | None:
    """Return epsilon, scale, shift and what is added to the scale, with which a module is a layer norm over an axis; None: it is none."""
    twin = copy.deepcopy(module).cpu().double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():  # a fresh norm has ones and zeros, which tell nothing
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device="cpu"))
    # other axes of two at least: over one position a norm of whole groups, or over time, is the same
    sizes = [size if place == axis else max(size, 2) for place, size in enumerate(shape)]
    samples = [torch.randn(sizes, generator=generator, dtype=torch.float64, device="cpu") * size + size for size in (1.0, 1e-2)]
    try:
        with torch.no_grad(), wide_inside():
            results = [twin.train(mode)(sample.clone()) for mode in (False, True) for sample in samples]
    except Exception:  # foreign code, called with a guess: whatever it raises means no
        return None
    samples *= 2
    if not all(isinstance(result, Tensor) and result.shape == sample.shape for result, sample in zip(results, samples, strict=True)):
        return None
    vectors = {name: parameter.detach() for name, parameter in twin.named_parameters()}
    for eps in epsilons:
        for (scale, shift), offset in product(_roles(names), (0.0, 1.0) if names else (0.0,)):
            first, second = (vectors[name] if name else None for name in (scale, shift))
            first = first + offset if first is not None else None
            wanted = (reference(sample, eps, first, second, axis) for sample in samples)
            if all(float((a - b).abs().max()) <= _EXACT * float(b.abs().max()) for a, b in zip(results, wanted, strict=True)):
                return eps, scale, shift, offset
    return None


def _roles(names: list[str]) -> Iterator[tuple[str, str]]:
    """Which parameter scales and which shifts."""
    if len(names) == 2:
        yield names[0], names[1]
        yield names[1], names[0]
    else:
        yield (names[0], "") if names else ("", "")
        yield ("", names[0]) if names else ("", "")
