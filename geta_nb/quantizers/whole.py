"""Quantizers stay whole where a model is sharded: every rank has d, q_m and t of all layers, a few numbers each.

``torch.distributed.fsdp.fully_shard`` leaves modules alone that another way of distributing them was applied to; quantizers say of
themselves that they are replicated. So ``fully_shard(geta.model)`` takes them as they are: it would refuse single numbers, and round them
where its policy computes in bfloat16. Their gradients are averaged by the optimizer (``qasso.whole_gradients``).
"""

from __future__ import annotations

from torch import nn


def keep_whole(cls: type[nn.Module]) -> None:
    """Let ``fully_shard`` pass modules of a class by; where torch has no such mark, ``ignored_params=`` is left."""
    try:
        from torch.distributed._composable.contract import REGISTRY_KEY, RegistryItem
    except ImportError:  # a torch without processes, or one that keeps its marks elsewhere
        return
    setattr(cls, REGISTRY_KEY, {"replicate": RegistryItem()})
