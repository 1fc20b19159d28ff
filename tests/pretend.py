"""A pretended accelerator, so that what a GPU run does can be tested without one: ``torch.device("pretend")``.

In: nothing; :func:`start` gives the process the device. Out: tensors of it, which torch takes for those of an accelerator (a device of
their own, a random generator of their own, autograd, ``.to()``, optimizers) while the CPU computes on their memory. As on a GPU, tensors of
two devices do not mix, and what waits for the device is counted: :data:`WAITS`.

A device is given to a process once and for all, so it is used in processes of their own. A parameter that moves there stays the object that
it is, and views of it stay where they were, as on a GPU.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
WAITS: Counter[str] = Counter()
"""Operators that had to wait for the device, by name, since somebody cleared it."""

_CPU = torch.device("cpu")
_KEPT: list[tuple[Tensor, StorageWeakRef]] = []  # memory, and whose it is
_GENERATORS = [torch.Generator()]
_ANY_DEVICE = ("index.Tensor", "index_put", "_index_put", "_copy_from", "_to_copy", "embedding_renorm")
"""Operators that take an index, or a source, of the CPU."""
_WAITING = ("nonzero", "_unique2", "unique_dim", "masked_select", "equal", "is_nonzero", "repeat_interleave.Tensor", "bincount")
_LIBRARIES: list[Any] = []  # a registration lives as long as its library


class _Module:
    """``torch.pretend``: what torch asks a device's module."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        _GENERATORS[0].manual_seed(seed)

    @staticmethod
    def get_rng_state(device: Any = 0) -> Tensor:
        return _GENERATORS[0].get_state()

    @staticmethod
    def set_rng_state(state: Tensor, device: Any = 0) -> None:
        _GENERATORS[0].set_state(state)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def start() -> torch.device:
    """Give the process the device, and return it."""
    if not _LIBRARIES:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        library = torch.library.Library("_", "IMPL")
        library.fallback(_run, "PrivateUse1")
        kernels = torch.library.Library("aten", "IMPL")
        kernels.impl("convolution_overrideable", _convolution, "PrivateUse1")
        kernels.impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
        _LIBRARIES.extend((library, kernels))
        torch.UntypedStorage.clone = _clone  # type: ignore[method-assign]  # of a storage there is no operator
        # `p.data = there` is for torch's own devices; what it offers others refuses parameters that somebody looks at
        torch.__future__.set_swap_module_params_on_conversion(True)
        torch.utils.swap_tensors = torch._C._swap_tensor_impl
    return torch.device(NAME, 0)


def _is_there(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _lower(tensor: Tensor) -> Tensor:
    """Return the memory of a tensor of the device as one of the CPU's."""
    storage = tensor.untyped_storage()
    memory = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), _CPU, storage.nbytes())
    return torch.empty(0, dtype=tensor.dtype, device=_CPU).set_(memory, tensor.storage_offset(), tensor.size(), tensor.stride())


def _lift(tensor: Tensor) -> Tensor:
    """Return a tensor of the device over the memory of one of the CPU's, which lives as long as it."""
    return _adopt(torch._C._acc.create_empty_tensor((0,), tensor.dtype), tensor)


def _adopt(made: Tensor, tensor: Tensor) -> Tensor:
    """Let a tensor of the device lie over the memory of one of the CPU's."""
    storage, set_ = tensor.untyped_storage(), torch.ops.aten.set_.source_Storage_storage_offset
    memory = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), torch.device(NAME, 0), storage.nbytes())
    set_._op_dk(torch._C.DispatchKey.CPU, made, memory, tensor.storage_offset(), tensor.size(), tensor.stride())
    _KEPT.append((tensor, StorageWeakRef(made.untyped_storage())))
    if len(_KEPT) % 4096 == 0:
        _KEPT[:] = [(kept, owner) for kept, owner in _KEPT if not owner.expired()]
    return made


def _clone(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    if storage.device.type != NAME:
        return torch.UntypedStorage(storage.nbytes(), device=storage.device).copy_(storage)
    memory = torch._C._construct_storage_from_data_pointer(storage.data_ptr(), _CPU, storage.nbytes())
    return _lift(torch.empty(0, dtype=torch.uint8, device=_CPU).set_(memory).clone()).untyped_storage()


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator that was given a tensor of the device, or asked for one: views as they are, all else on the CPU."""
    name = op._schema.name.split("::")[-1]
    full = f"{name}.{op._overloadname}" if op._overloadname != "default" else name
    if name == "_copy_from":
        return _copy(*args)
    if op.is_view or name == "set_" or (torch.Tag.inplace_view in op.tags):
        return op._op_dk(torch._C.DispatchKey.CPU, *args, **kwargs)
    leaves = pytree.tree_leaves((args, kwargs))
    _check_places(full, leaves)
    if name == "_local_scalar_dense" or full in _WAITING:
        WAITS[full] += 1
    if name == "resize_":
        return _adopt(args[0], torch.empty(args[1], dtype=args[0].dtype)) if tuple(args[0].shape) != tuple(args[1]) else args[0]
    # what is only written may have to grow
    read = {id(leaf) for leaf in pytree.tree_leaves(args)}
    outs = {id(kwargs[a.name]) for a in op._schema.arguments if a.is_out and a.name in kwargs} - read
    lowered = {id(leaf): torch.empty_like(leaf, device=_CPU) if id(leaf) in outs else _lower(leaf) for leaf in leaves if _is_there(leaf)}
    origin = {id(cpu): next(leaf for leaf in leaves if id(leaf) == key) for key, cpu in lowered.items()}
    args, kwargs = pytree.tree_map(lambda leaf: _lowered(leaf, lowered), (args, kwargs))
    # a number that torch had wrapped comes as a number
    kinds = [str(argument.type) for argument in op._schema.arguments[: len(args)]]
    args = tuple(
        torch.tensor(a, device=_CPU) if kind == "Tensor" and isinstance(a, int | float) else a
        for kind, a in zip(kinds, args, strict=True)
    )
    if "generator" in {argument.name for argument in op._schema.arguments} and kwargs.get("generator") is None:
        kwargs["generator"] = _GENERATORS[0]
    found = op(*args, **kwargs)
    for key in outs & lowered.keys():
        out, result = origin[id(lowered[key])], lowered[key]
        _lower(out).copy_(result) if out.shape == result.shape else _adopt(out, result)
    return pytree.tree_map(lambda leaf: _lifted(leaf, origin), found)


def _lowered(leaf: Any, lowered: dict[int, Tensor]) -> Any:
    if isinstance(leaf, torch.device):
        return _CPU if leaf.type == NAME else leaf
    return lowered.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf


def _lifted(leaf: Any, origin: dict[int, Tensor]) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return origin[id(leaf)] if id(leaf) in origin else _lift(leaf)


def _convolution(*args: Any) -> Any:
    return _run(torch.ops.aten.convolution.default, *args)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *options: Any) -> Any:
    return _run(torch.ops.aten.convolution_backward.default, grad, x, weight, None if not options[-1][2] else [weight.shape[0]], *options)


def _check_places(name: str, leaves: list[Any]) -> None:
    """Raise what CUDA raises where tensors of two devices meet; a number of the CPU may."""
    if name.startswith(_ANY_DEVICE):
        return
    places = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor) and (leaf.ndim or leaf.device.type == NAME)}
    if len(places) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} was given {' and '.join(sorted(places))}.")


def _copy(source: Tensor, into: Tensor, non_blocking: bool = False) -> Tensor:
    if _is_there(source) and not _is_there(into):
        WAITS["copy to the CPU"] += 1
    (_lower(into) if _is_there(into) else into).copy_(_lower(source) if _is_there(source) else source)
    return into
