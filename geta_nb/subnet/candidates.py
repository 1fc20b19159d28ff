"""Does a module of the model's own classes stand for the cut graph? Its outputs are compared, and the products it makes. Under ``build``.

In: a cut graph, and which sizes its inputs may have. Out: for each candidate, yes or no. Outputs alone do not tell: where one head is left,
two of half its width give the same sums once a mixing matrix of one row lets them broadcast, and are not what was promised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from geta_nb.graph import InputSizes, are_close, outputs_of, value_of
from geta_nb.quantizers import ActivationQuantizer, Quantizer, standing_in

# what torch multiplies with, below its layers: each of them has a cost where it stands in a graph
_MATRICES = frozenset({"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "convolution", "_trilinear"})
_FUSED = frozenset({"mkldnn_rnn_layer", "_cudnn_rnn", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"})
_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention")

Product = tuple[str, tuple[tuple[int, ...], ...]]
Made = Counter[Product]


class Candidates:
    """What a cut graph gives and multiplies at a closer look, to which candidates are held.

    Args:
        graph: the cut graph.
        sizes: which sizes of inputs it is for.
        args, kwargs: example inputs.
        uncut: () -> (the model, its graph), with nothing removed; asked for only where products differ.
    """

    def __init__(
        self, graph: nn.Module, sizes: InputSizes | None, args: tuple[Any, ...], kwargs: dict[str, Any],
        uncut: Callable[[], tuple[nn.Module, nn.Module]],
    ) -> None:  # fmt: skip
        self._uncut = uncut
        self._spared: tuple[Counter[str], Counter[str]] | None = None
        (self._args, self._kwargs), self._outputs, self._made = _closer_look(graph, sizes, args, kwargs)

    def admit(self, candidate: nn.Module) -> bool:
        """Whether a candidate gives what the graph gives, by the products that the graph makes."""
        outputs, made = _looked_at(candidate, self._args, self._kwargs)
        return are_close(outputs, self._outputs) and (made == self._made or self._differed_before(made))

    def _differed_before(self, made: Made) -> bool:
        """Whether as many products, by the names of their operators, differ between the model and its graph where nothing is cut.

        Such are branches that the forward runs and nobody reads, and kernels that do several steps of a graph at once.
        """
        if self._spared is None:
            whole, traced = (_looked_at(net, self._args, self._kwargs)[1] for net in self._uncut())
            self._spared = _names(whole - traced), _names(traced - whole)
        more, fewer = self._spared
        return _names(made - self._made) <= more and _names(self._made - made) <= fewer


def _names(made: Made) -> Counter[str]:
    found: Counter[str] = Counter()
    for (name, _), times in made.items():
        found[name] += times
    return found


def _closer_look(
    graph: nn.Module, sizes: InputSizes | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], list[Tensor], Made]:
    """Return inputs that hide less than the example does, and what a graph makes of them.

    They have one index more along each axis that is free: where a module has ``view(-1, 2, ...)`` in its code and one of two heads is
    cut, the batch of the example may take the head's place unseen, half as many images of twice the size.
    """
    if sizes is not None and sizes.free:
        example = sizes.without(sizes.conditions).read(pytree.tree_leaves((args, kwargs)))
        other = {name: size + 1 for name, size in example.items()}
        with suppress(Exception):  # of a network that does not take this size, whatever it raises
            if all(value_of(text, other) for text in sizes.conditions):
                inputs = sizes.resized((args, kwargs), other)
                return inputs, *_looked_at(graph, *inputs)
    return (args, kwargs), *_looked_at(graph, args, kwargs)


def _looked_at(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Tensor], Made]:
    with _Products() as products:
        outputs = unrounded(module, args, kwargs)
    return outputs, products.made


def unrounded(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the outputs of a module whose input quantizers pass everything: their steps hide what differs by less."""
    quantizers: list[Quantizer] = [item for item in module.modules() if isinstance(item, ActivationQuantizer)]
    with standing_in(dict.fromkeys(quantizers, torch.Tensor.detach)):
        return outputs_of(module, args, kwargs)


class _Products(TorchDispatchMode):
    """Writes down the products that torch makes, by their operators and the shapes of what is multiplied."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: Made = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = getattr(getattr(func, "overloadpacket", None), "__name__", "")
        shapes = [tuple(item.shape) for item in args if isinstance(item, Tensor)]
        if name in _MATRICES or name in _FUSED:
            self.made[name, tuple(shapes)] += 1
        elif name.startswith(_ATTENTION):  # keys may be fewer than queries that read them, and a mask stand aside
            query, key, value = shapes[:3]
            self.made["attention", (query, key[-2:], value[-2:])] += 1
        return func(*args, **(kwargs or {}))
