"""Do two modules compute the same? In: modules and inputs. Out: a largest difference, or yes and no. Serves the subnet."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from geta_nb.graph.draws import own_draws
from geta_nb.graph.nodes import operator_name
from geta_nb.graph.objects import tensors_in
from geta_nb.graph.trace import eval_mode

# n summands in another order differ by about n eps: these leave three to four orders of magnitude for depth
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@contextmanager
def own_forwards(model: nn.Module) -> Iterator[None]:
    """Take off, for a while, what trainers decorate a module's own ``forward`` with (accelerate: mixed precision)."""
    decorated = {}
    for module in model.modules():
        forward = module.__dict__.get("forward")
        if forward is not None and getattr(forward, "__wrapped__", None) is not None:
            inside = inspect.unwrap(forward)
            if getattr(inside, "__func__", inside) is type(module).forward:
                decorated[module] = module.__dict__.pop("forward")
    try:
        yield
    finally:
        for module, forward in decorated.items():
            module.__dict__["forward"] = forward


def outputs_of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, objects: bool = True) -> list[Tensor]:
    """Return the output tensors of a module in eval mode, flattened; modes are restored, and inputs stay, though it writes into them.

    Args:
        module: what to run.
        args, kwargs: inputs.
        objects: also those inside of objects that torch knows no structure of.
    """
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
    with torch.no_grad(), eval_mode(module), own_draws():
        out = module(*args, **kwargs)
    return tensors_in(out) if objects else [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]


def max_difference(left: list[Tensor], right: list[Tensor]) -> float:
    """Return the largest absolute difference between two lists of tensors.

    Equal infinities and NaN at the same place do not differ; infinite when shapes differ, or one of two is not finite.
    """
    if [tuple(a.shape) for a in left] != [tuple(b.shape) for b in right]:
        return math.inf
    return max((_difference(a, b) for a, b in zip(left, right, strict=True) if a.numel()), default=0.0)


def _difference(a: Tensor, b: Tensor) -> float:
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    a, b = a.to(wide), b.to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    return float((a - b).abs().masked_fill(same, 0).nan_to_num(math.inf, math.inf).max())


def agrees(
    module: nn.Module, reference: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], *, inside: Iterable[torch.dtype] = ()
) -> bool:
    """Whether a module gives the reference outputs, up to the rounding of another order of summation.

    Args:
        module: what to run.
        reference: expected outputs.
        args, kwargs: inputs.
        inside: dtypes that the network computes in on the way; the coarsest one rounds.
    """
    return are_close(outputs_of(module, args, kwargs), reference, inside=inside)


def are_close(found: list[Tensor], reference: list[Tensor], *, inside: Iterable[torch.dtype] = ()) -> bool:
    """Whether outputs are the reference, up to the rounding of another order of summation; ``inside`` as for :func:`agrees`."""
    finite = [item[item.isfinite()] for item in reference if item.is_floating_point()]
    scale = max((float(item.abs().max()) for item in finite if item.numel()), default=1.0)
    dtypes = {*inside, *(item.dtype for item in reference)}
    tolerance = max((_TOLERANCE.get(dtype.to_real(), 1e-4) for dtype in dtypes if dtype.is_floating_point or dtype.is_complex), default=0.0)
    return max_difference(found, reference) <= tolerance * max(scale, 1e-3)


def computed_dtypes(module: fx.GraphModule) -> set[torch.dtype]:
    """Return the dtypes in which a traced network does more than cast: an operator of a float64 network may sum in float32."""
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "call_function" and operator_name(node) != "_to_copy"]
    return {value.dtype for value in values if isinstance(value, Tensor)}


def agree_in_float64(
    module: nn.Module, other: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, inside: Iterable[torch.dtype] = ()
) -> bool:
    """Whether copies of two modules in float64 agree: the numbers of the two must be the same, up to the rounding of ``inside``.

    The last word where float32 says no: an activation that lies between two codes may fall either way when a sum is taken in another
    order, which happens once in some 1e6 activations in float32 and never in float64; and a network of steep functions (a sine of 30 x)
    makes a rounding larger at every layer.

    Args:
        inside: dtypes that numbers of one module were rounded to when they were made from the other's, as a norm that is folded into a
            layer is to float32; none: they are the very same numbers.
    """
    try:
        first, second = copy.deepcopy(module).double(), copy.deepcopy(other).double()
        wide_args, wide_kwargs = pytree.tree_map(_widened, (args, kwargs))
        with wide_inside():
            return agrees(first, outputs_of(second, wide_args, wide_kwargs), wide_args, wide_kwargs, inside=inside)
    except (RuntimeError, TypeError, NotImplementedError):
        return False  # a module that cannot be copied, or that its own forward holds to a type


def wide_inside() -> AbstractContextManager[Any]:
    """Let what a network casts to a narrower type on the way (a norm of a language model to float32) be float64 too."""
    return _Wide()  # type: ignore[no-untyped-call]


class _Wide(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run an operator with float64 wherever it is asked for fewer digits."""
        wide_args, wide_kwargs = pytree.tree_map_only(torch.dtype, _wide_dtype, (args, kwargs or {}))
        return func(*wide_args, **wide_kwargs)


def _wide_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else dtype


def _widened(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
