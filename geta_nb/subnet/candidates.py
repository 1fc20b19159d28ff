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

Product = tuple[int, int]
"""How many numbers were multiplied, and how many products are summed into one: the same whichever of torch's kernels did it."""
Made = Counter[Product]


# what torch makes products with, below its layers; of a matrix product, which argument is the left operand
_MATRICES = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1, "addmv": 1}
_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention")


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
        self._spared: tuple[int, int] | None = None
        (self._args, self._kwargs), self._outputs, self._made = _closer_look(graph, sizes, args, kwargs)

    def admit(self, candidate: nn.Module) -> bool:
        """Whether a candidate gives what the graph gives, by the products that the graph makes."""
        outputs, made = _looked_at(candidate, self._args, self._kwargs)
        return are_close(outputs, self._outputs) and (made == self._made or self._differed_before(made))

    def _differed_before(self, made: Made) -> bool:
        """Whether as many products differ between the model and its graph where nothing is cut: of branches that run and nobody reads."""
        if self._spared is None:
            whole, traced = (_looked_at(net, self._args, self._kwargs)[1] for net in self._uncut())
            self._spared = (whole - traced).total(), (traced - whole).total()
        more, fewer = self._spared
        return (made - self._made).total() <= more and (self._made - made).total() <= fewer


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
    """Writes down the products that torch makes while it is active."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: Made = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run an operator."""
        result = func(*args, **(kwargs or {}))
        name = getattr(getattr(func, "overloadpacket", None), "__name__", "")
        if name in _MATRICES:  # of shapes (..., n, k) and (..., k, m), behind what is added
            left = args[_MATRICES[name]]
            self._note(result.numel() if name != "addbmm" else left.shape[0] * result.numel(), left.shape[-1])
        elif name == "convolution":
            weight, transposed = args[1], args[6]
            self._note(args[0].numel() if transposed else result.numel(), weight[0].numel())
        elif name.startswith(_ATTENTION):
            query, key, value = args[:3]
            rows = query.shape[:-1].numel()
            self._note(rows * key.shape[-2], query.shape[-1])
            self._note(rows * value.shape[-1], key.shape[-2])
        return result

    def _note(self, sums: int, products: int) -> None:
        self.made[sums * products, products] += 1
