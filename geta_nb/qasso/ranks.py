"""Runs of several processes: what all ranks agree on, and models that lie on several. In: a model or figures. Out: the same, checked.

Data-parallel training (``DistributedDataParallel``) needs no more: gradients are the mean of all ranks', so weights stay the same on each.
Where parameters are sharded, ``sharding`` adds up what each rank has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geta_nb.errors import ConfigError
from geta_nb.quantizers import computed, is_last, parameter_tensors
from geta_nb.sharding import Shards, check_shards, is_sharded


def several() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this is the only process, or rank 0: the one that speaks for all."""
    return not several() or dist.get_rank() == 0


def mean(values: Tensor) -> Tensor:
    """Return the mean of ``values`` over all ranks, the same bits on each; all ranks must call it."""
    if several():
        values = values.clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def largest(values: Tensor) -> Tensor:
    """Return the largest of each of ``values`` over all ranks; all ranks must call it."""
    if several():
        values = values.clone()
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return values


def agreed(values: Sequence[int], device: torch.device) -> list[int]:
    """Return rank 0's ``values`` on all ranks, of which all must call it: a rounding is not left to each rank's last digit."""
    if not several() or not values:
        return list(values)
    shared = torch.tensor(list(values), dtype=torch.int64, device=device)
    dist.broadcast(shared, 0)
    return [int(value) for value in shared.tolist()]


def check_unwrapped(model: nn.Module) -> None:
    """Check that a model is itself, whole, and not what distributes it.

    Raises:
        ConfigError: a wrapper that copies or shards the model, or parameters of which this rank has only a share.
    """
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    if isinstance(model, wrappers):
        raise ConfigError(
            "GETA: the model is wrapped already.", expected="the model itself, wrapped afterwards", got=type(model).__name__,
            hint=f"geta = gt.GETA(model, ...); model = {type(model).__name__}(geta.model)",
        )  # fmt: skip
    parameters = parameter_tensors(model)
    if check_shards(model, parameters, "GETA") is not None:
        name = next(name for name, tensor in parameters.items() if is_sharded(tensor))
        raise ConfigError(
            "GETA: the model is sharded already.", at=name, expected="the whole model (on the meta device where it is too large)",
            got=f"a DTensor, {tuple(getattr(parameters[name], 'placements', ()))}",
            hint="geta = gt.GETA(model, ...); fully_shard(geta.model); optimizer = geta.qasso(...)",
        )  # fmt: skip


def check_shared(model: nn.Module, parameters: Mapping[str, Tensor], identity: str, quantizers: Iterable[nn.Module]) -> None:
    """Check that ranks share a model in a way that is supported, and bring the quantizers of a sharded one to where its passes run.

    Args:
        model: copied, sharded, or this process's own.
        parameters: own name -> tensor.
        identity: of the pruning space.
        quantizers: whole on every rank: ``fully_shard`` moves what it shards and leaves these.

    Raises:
        ConfigError: shards that are not supported, or other networks on other ranks; nothing was changed.
    """
    shards = check_shards_of(model, parameters, "qasso")
    first = next(iter(parameters.values()), None)
    check_alike(identity, torch.device("cpu") if first is None else first.device if shards is None else shards.device)
    for quantizer in quantizers:
        if shards is not None and not any(p.is_meta for p in quantizer.parameters()):
            quantizer.to(shards.device)


def check_shards_of(model: nn.Module, parameters: Mapping[str, Tensor], who: str) -> Shards | None:
    """Return the ranks over which a quantized model is sharded, as ``sharding.check_shards``.

    Raises:
        ConfigError: its shards are not supported, or parametrizations of the model's own compute a weight: the rows that a rank has of what
            they compute from are no rows of the weight. Nothing was changed.
    """
    shards = check_shards(model, parameters, who)
    for path, module in model.named_modules() if shards is not None else ():
        for name in computed(module):
            if is_last(module, name):
                raise ConfigError(
                    f"{who}: weights that parametrizations of the model's own compute cannot be quantized while the model is sharded.",
                    at=f"{path}.{name}".lstrip("."), expected="a weight that is a parameter",
                    got=", ".join(type(part).__name__ for part in list(computed(module)[name])[:-1]),
                    hint="torch.nn.utils.parametrize.remove_parametrizations(...) before gt.GETA, QuantConfig(skip=...), "
                    "or DistributedDataParallel(geta.model)",
                )  # fmt: skip
    return shards


def check_alike(identity: str, device: torch.device) -> None:
    """Check that all ranks compress the same network; all must ask.

    Args:
        identity: of the pruning space.
        device: where a message is taken from.

    Raises:
        ConfigError: they do not, as the stages of a pipeline do.
    """
    if not several():
        return
    own = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:7], "big")
    differs = agreed([own], device)[0] != own
    if bool(largest(torch.tensor(float(differs), device=device))):
        raise ConfigError(
            "qasso: ranks have different networks: stages of a pipeline are not supported, each would need budgets of its own.",
            expected="one network, copied (DistributedDataParallel) or sharded (fully_shard)",
            got=f"rank {dist.get_rank()} has {'another one than' if differs else 'that of'} rank 0",
            hint="gt.GETA(model, ...) of the whole network on every rank",
        )  # fmt: skip
