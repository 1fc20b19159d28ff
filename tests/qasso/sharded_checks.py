"""What a sharded run does besides ending like one process: asked of all ranks together, by tests/qasso/sharded_worker.py.

In: nothing. Out: name -> what a rank found: words of the error where something was refused, else figures. Every check leaves its ranks at
the same point, whether it was refused or not.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.utils.parametrizations import weight_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import geta_nb as gt
from geta_nb.errors import ConfigError, NonFiniteError
from geta_nb.sharding import local
from tests.qasso import sharded_worker as worker
from tests.qasso.sharded_nets import NETS

BUDGET, SCHEDULE = gt.Budget(0.5), gt.Schedule(0, 1, 1, 4, 2)
MLP: worker.Case = {"net": "mlp"}


def _plain(*, quantize: gt.QuantConfig | None = None) -> tuple[gt.GETA, Tensor]:
    """Without quantizers: ``parallelize_module`` itself turns computed weights away."""
    net = NETS["mlp"]
    return gt.GETA(net.make(), net.batch(0)[0][:2], quantize=quantize), net.batch(0)[0]


def _parallel(model: nn.Module, mesh: Any) -> nn.Module:
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def _refused(call: Callable[[], object], *models: nn.Module) -> str:
    """The words of the error; that nothing was changed is the caller's to see, but for tensors, which are compared here."""
    before = [{name: local(p).detach().clone() for name, p in model.named_parameters()} for model in models]
    try:
        call()
    except ConfigError as error:
        for model, old in zip(models, before, strict=True):
            now = dict(model.named_parameters())
            assert now.keys() == old.keys() and all(torch.equal(local(now[name]).detach(), old[name]) for name in old)
        return str(error)
    return "not refused"


def _qasso(geta: gt.GETA, inner: Any = torch.optim.SGD) -> gt.QASSO:
    return geta.qasso(inner, lr=0.1, budget=BUDGET, schedule=SCHEDULE)


def tensor_parallel() -> str:
    geta, _ = _plain()
    _parallel(geta.model, init_device_mesh("cpu", (worker.world(),)))
    return _refused(lambda: _qasso(geta), geta.model)


def analysed_after_tensor_parallel() -> str:
    model = _parallel(NETS["mlp"].make(), init_device_mesh("cpu", (worker.world(),)))
    return _refused(lambda: gt.GETA(model, NETS["mlp"].batch(0)[0]), model)


def sharded_on_top_of_tensor_parallel() -> str:
    geta, _ = _plain()
    mesh = init_device_mesh("cpu", (worker.world(), 1), mesh_dim_names=("data", "tensor"))
    _parallel(geta.model, mesh["tensor"])
    fully_shard(geta.model, mesh=mesh["data"])
    return _refused(lambda: _qasso(geta), geta.model)


def over_some_of_the_ranks() -> str:
    geta, _ = _plain()
    fully_shard(geta.model, mesh=init_device_mesh("cpu", (worker.world(), 1), mesh_dim_names=("mine", "one"))["one"])
    return _refused(lambda: _qasso(geta), geta.model)


def over_two_meshes() -> str:
    geta, _ = _plain()
    mesh = init_device_mesh("cpu", (worker.world(), 1), mesh_dim_names=("all", "one"))
    fully_shard(geta.model[2], mesh=mesh["one"])
    fully_shard(geta.model, mesh=mesh["all"])
    return _refused(lambda: _qasso(geta), geta.model)


def other_networks() -> str:
    """The stages of a pipeline: each rank has another network."""
    width = 8 + worker.rank()
    geta = gt.GETA(nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)), torch.randn(2, 6))
    return _refused(lambda: _qasso(geta), geta.model)


def analysed_afterwards() -> str:
    model = NETS["mlp"].make()
    fully_shard(model)
    return _refused(lambda: gt.GETA(model, NETS["mlp"].batch(0)[0]), model)


def lbfgs() -> str:
    geta, _ = _plain(quantize=gt.QuantConfig())
    worker.shard(NETS["mlp"], geta.model, MLP)
    return _refused(lambda: geta.qasso(torch.optim.LBFGS, budget=BUDGET, schedule=SCHEDULE), geta.model)


def computed_weights() -> str:
    geta = gt.GETA(nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 6))
    fully_shard(geta.model)
    return _refused(lambda: _qasso(geta), geta.model)


def late_computed_weights() -> str:
    geta = gt.GETA(nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 6))
    optimizer = _qasso(geta)
    fully_shard(geta.model)
    return _refused(optimizer.step, geta.model)


def late_tensor_parallel() -> str:
    """Made parallel after the optimizer was built: the first step refuses it."""
    geta, _ = _plain()
    optimizer = _qasso(geta)
    _parallel(geta.model, init_device_mesh("cpu", (worker.world(),)))
    found = _refused(optimizer.step, geta.model)
    assert optimizer.steps_done == 0
    return found


def _everything(geta: gt.GETA, optimizer: gt.QASSO) -> list[Tensor]:
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    own = [p.detach() for p in geta.model.parameters()] + [t for t in tree_leaves(optimizer.state_dict()["qasso"]) if isinstance(t, Tensor)]
    return [local(tensor).clone() for tensor in [*own, *state] if isinstance(tensor, Tensor)]


def not_finite() -> list[str]:
    """NaN on one rank only: in its rows of a weight's gradient, of a quantizer's, in its share of a batch; then training goes on."""
    found = []
    for where in ("rows", "quantizer", "batch"):
        geta, optimizer, net = worker.train(MLP | {"optimizer": "adamw"}, steps=7)
        optimizer.zero_grad()
        last = worker.rank() == worker.world() - 1
        if where == "batch":
            x, labels = net.batch(7)
            x[-1] = torch.nan  # the last rank's
            mine = x.chunk(worker.world())[worker.rank()]
            net.loss(geta.model, mine, labels.chunk(worker.world())[worker.rank()]).backward()
        else:
            worker.backward(geta, net, 7)
        if where == "rows" and last:
            local(geta.model[2].parametrizations.weight.original.grad)[0, 0] = torch.inf
        if where == "quantizer" and last:
            geta.model[2].parametrizations.weight[0].step_size.grad.fill_(torch.nan)
        before, done = _everything(geta, optimizer), optimizer.steps_done
        try:
            optimizer.step()
        except NonFiniteError as error:
            found.append(str(error))
        else:
            found.append("no error")
        after = _everything(geta, optimizer)
        assert optimizer.steps_done == done and len(before) == len(after)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), where
        optimizer.zero_grad()
        worker.backward(geta, net, 7)
        optimizer.step()
        assert optimizer.steps_done == done + 1
    return found


def _policy(**options: Any) -> dict[str, Any]:
    """A run in float32 under a policy, with what all ranks must have alike."""
    net = NETS["mlp"]
    geta = gt.GETA(net.make().float(), net.batch(0)[0][:2].float(), quantize=gt.QuantConfig(activations=True))
    geta.calibrate([net.batch(-1)[0].float()])
    mesh = init_device_mesh("cpu", (worker.world(),))
    fully_shard(geta.model[2], mesh=mesh, **options)
    fully_shard(geta.model, mesh=mesh, **options)
    optimizer = worker.optimizer_of(geta, {"optimizer": "adamw"})
    first = last = None
    while optimizer.steps_done < worker.TOTAL:
        optimizer.zero_grad()
        x, labels = (part.chunk(worker.world())[worker.rank()] for part in net.batch(optimizer.steps_done % 2))
        loss = net.loss(geta.model, x.float(), labels)
        loss.backward()
        optimizer.step()
        first, last = float(loss.detach()) if first is None else first, float(loss.detach())
    own = {name: p.detach() for name, p in geta.model.named_parameters() if not hasattr(p, "placements")}
    kinds = {str(p.dtype) for p in geta.model.parameters()}
    alike = {"zero": geta.group_sparsity(), "bits": [geta.bit_widths(), geta.activation_bit_widths()], "own": worker.digest(own)}
    return {"alike": alike, "first": first, "last": last, "kinds": sorted(kinds), "k": optimizer.n_redundant}


def half_precision() -> dict[str, Any]:
    return _policy(mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))


def half_precision_reduced() -> dict[str, Any]:
    return _policy(mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))


def offloaded() -> dict[str, Any]:
    return _policy(offload_policy=CPUOffloadPolicy(pin_memory=False))


def scaled() -> dict[str, Any]:
    """``GradScaler``: a step whose scaled gradients overflow on one rank is left out by all; the others are taken."""
    geta, net = worker.start(MLP)
    worker.shard(net, geta.model, MLP)
    optimizer = worker.optimizer_of(geta, MLP)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    done = []
    for step in range(worker.TOTAL):
        optimizer.zero_grad()
        x, labels = (part.chunk(worker.world())[worker.rank()] for part in net.batch(step))
        scaler.scale(net.loss(geta.model, x, labels)).backward()
        if step == 5 and worker.rank() == 0:
            local(geta.model[2].parametrizations.weight.original.grad)[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        done.append(optimizer.steps_done)
    return {"done": done, "scale": scaler.get_scale(), "digest": worker.digest(worker.tensors_of(geta.model))}


def held() -> dict[str, Any]:
    """Other weights come in, as an average of several steps would: dead groups go to zero again, bits to what is fixed."""
    geta, optimizer, _ = worker.train(MLP)
    alive, bits = optimizer.group_mask, geta.bit_widths()
    with torch.no_grad():
        for name, p in geta.model.named_parameters():
            local(p).mul_(1.25) if name.endswith("step_size") else local(p).add_(0.01)
    stray = geta.group_sparsity()
    optimizer.hold()
    kept = float(worker.whole(geta.model[2].bias).abs().sum())
    zero = [bool(flag) for flag in alive] == [bool(flag) for flag in worker.alive_of(geta)]
    return {"stray": stray, "alive": zero, "bits": geta.bit_widths() == bits, "others": kept > 0, "sparsity": geta.group_sparsity()}


class Messages(TorchDispatchMode):
    """Counts the numbers in each message to other ranks, and in the largest tensor that is made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.names: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves([args, found]) if isinstance(leaf, Tensor)]
        if func.namespace in ("c10d", "_c10d_functional"):
            self.sizes.append(max((t.numel() for t in tensors), default=0))
            self.names[func.name()] += 1
        self.largest = max([self.largest, *(local(t).numel() for t in tensors)])
        return found


def messages(rules: str) -> dict[str, Any]:
    """What the optimizer sends in all steps of a run, and the largest tensor that it touches."""
    case = {"net": "wide", "rules": rules, "optimizer": "adamw", "activations": True}
    geta, net = worker.start(case)
    worker.shard(net, geta.model, case)
    optimizer = worker.optimizer_of(geta, case)
    seen, counts = Messages(), [0]
    while optimizer.steps_done < worker.TOTAL:
        optimizer.zero_grad()
        worker.backward(geta, net, optimizer.steps_done)
        with seen:
            optimizer.step()
        counts.append(len(seen.sizes))
    share = max(local(p).numel() for p in geta.model.parameters())
    return {
        "names": dict(seen.names), "largest": max(seen.sizes), "groups": len(geta.groups), "quantizers": len(optimizer.bank),
        "touched": seen.largest, "share": share, "whole": max(p.numel() for p in geta.model.parameters()),
        "zero": geta.group_sparsity(), "of_steps": [after - before for before, after in itertools.pairwise(counts)],
    }  # fmt: skip


def memory() -> dict[str, Any]:
    """Bytes that this rank holds after some steps: parameters, gradients, the optimizer's state; and what one row too many may cost."""
    geta, optimizer, _ = worker.train({"net": "wide", "optimizer": "adamw"}, steps=8)
    parameters = list(geta.model.parameters())
    sizes: dict[str, int] = dict.fromkeys(("parameters", "gradients", "state", "uneven", "whole"), 0)

    def nbytes(tensor: Tensor) -> int:
        here = local(tensor)
        return here.numel() * here.element_size()

    for p in parameters:
        states = [value for value in optimizer.state[p].values() if isinstance(value, Tensor)]
        own = [nbytes(p), nbytes(p.grad) if p.grad is not None else 0, sum(nbytes(value) for value in states)]
        if hasattr(p, "placements") or (worker.world() == 1 and p.numel() > 1):
            for key, value in zip(("parameters", "gradients", "state"), own, strict=True):
                sizes[key] += value
            sizes["uneven"] += p.numel() // max(len(p), 1) * p.element_size()
        else:
            sizes["whole"] += sum(own)
    return sizes


def killed() -> str:
    """The last rank is gone in the middle of training: the others end with an error."""
    geta, net = worker.start(MLP | {"activations": False})
    worker.shard(net, geta.model, MLP)
    optimizer = worker.optimizer_of(geta, MLP)
    while True:
        optimizer.zero_grad()
        worker.backward(geta, net, optimizer.steps_done)
        if optimizer.steps_done == 5 and worker.rank() == worker.world() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.step()


REFUSALS: tuple[Callable[[], str], ...] = (
    tensor_parallel, analysed_after_tensor_parallel, sharded_on_top_of_tensor_parallel, over_some_of_the_ranks, over_two_meshes,
    other_networks, analysed_afterwards, lbfgs, late_tensor_parallel, computed_weights, late_computed_weights,
)  # fmt: skip
CHECKS: dict[str, Callable[[], Any]] = {
    **{check.__name__: check for check in REFUSALS},
    **{check.__name__: check for check in (not_finite, half_precision, half_precision_reduced, offloaded, scaled, held, memory)},
    "messages, default": lambda: messages("default"),
    "messages, paper": lambda: messages("paper"),
}


def run(names: list[str]) -> dict[str, Any]:
    """What each check found; ranks wait for each other in between."""
    found = {}
    for name in names:
        found[name] = CHECKS[name]()
        if dist.is_initialized():
            dist.barrier()
    return found
