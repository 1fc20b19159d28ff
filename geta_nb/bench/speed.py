"""Measure how long it takes from a model to its first cut model: ours by phase, and torch-pruning's build plus prune, side by side.

In: the name of a network. Out: seconds of processor time and of the clock, one entry a round. Both systems start each round from a fresh
model, take turns in one process with one thread, and remove 30 % by magnitude. Building the network is not counted.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb import adapting
from geta_nb.bench.speed_nets import NETS, imported, llama, tokens
from geta_nb.groups import GroupTable, IntArray
from geta_nb.qadg import analysis, kept
from geta_nb.quantizers import parameter_tensors
from geta_nb.subnet import build as subnet

SHARE = 0.3
MODES = ("pruning only", "quantized")
_EXPORT = torch.export.export
PHASES = ("exporter", "lowering", "labels", "groups", "quantizers", "branches", "costs", "choose", "cut", "runs")
"""Phases of ours. Torch's own work is ``exporter``: torch.export.export, module() and, where a network needs it, run_decompositions; the
forward passes on the example inputs are ``runs``: one that checks these inputs, two that compare model and graph where there are
quantizers, and those of masked, cut graph and cut module."""


class Stopwatch:
    """Adds up processor time by phase; a phase inside another is not counted twice."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.exports = 0
        self._open: list[list[float]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside as ``name``."""
        start, inner = time.process_time(), [0.0]
        self._open.append(inner)
        try:
            yield
        finally:
            self._open.pop()
            spent = time.process_time() - start
            self.seconds[name] += spent - inner[0]
            if self._open:
                self._open[-1][0] += spent

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, counted as ``name``."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.exports += function is _EXPORT
            with self.phase(name):
                return function(*args, **kwargs)

        return run

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the stages of the pipeline while they run."""
        stages: list[tuple[Any, str, str]] = [
            (torch.export, "export", "exporter"), (torch.export.ExportedProgram, "run_decompositions", "exporter"),
            (torch.export.ExportedProgram, "module", "exporter"), (kept, "trace_model", "lowering"), (adapting, "check_inputs", "runs"),
            (analysis, "check_agreement", "runs"), (subnet, "outputs_of", "runs"), (analysis, "attach_quantizers", "quantizers"),
            (analysis, "find_branches", "branches"), (analysis, "find_sites", "branches"), (analysis, "put_branches", "branches"),
            (analysis, "propagate", "labels"), (analysis, "find_groups", "groups"), (analysis, "price", "costs"),
        ]  # fmt: skip
        with ExitStack() as stack:
            for owner, name, phase in stages:
                stack.enter_context(patch.object(owner, name, self.wrapped(phase, getattr(owner, name))))
            yield


def weakest(table: GroupTable, parameters: dict[str, nn.Parameter]) -> IntArray:
    """Return the 30 % of each family with the smallest squared norm of what they produce."""
    scores = np.zeros(table.n_groups)
    for entry in table.axis_maps:
        if entry.producing:
            tensor = parameters[entry.parameter].detach()
            others = [axis for axis in range(tensor.dim()) if axis != entry.axis]
            sums = torch.linalg.vector_norm(tensor, dim=others).square() if others else tensor.square()
            taken = entry.group_of_index >= 0
            np.add.at(scores, entry.group_of_index[taken], sums.numpy()[taken])
    order = np.lexsort((scores, table.family_of))
    sizes = np.bincount(table.family_of)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.asarray(order[rank < np.floor(SHARE * sizes)[table.family_of[order]]], dtype=np.int64)


def run_ours(model: nn.Module, inputs: tuple[Tensor, ...], mode: str) -> dict[str, Any]:
    """Analyse, choose 30 % of each family and cut; return seconds by phase and what came out."""
    watch = Stopwatch()
    dense = sum(p.numel() for p in model.parameters())
    clock, start = time.perf_counter(), time.process_time()
    with watch.watching():
        found = gt.GETA(model, inputs, quantize=None if mode == "pruning only" else gt.QuantConfig())
    with watch.phase("choose"):
        found.mask([int(i) for i in weakest(found.groups.table, parameter_tensors(model))])
    with watch.watching(), watch.phase("cut"):
        small = found.construct_subnet()
    facts = {"seconds": time.process_time() - start, "wall": time.perf_counter() - clock, "phases": watch.seconds}
    names = dict(parameter_tensors(small))
    kept = sum({id(p): p.numel() for p in names.values()}.values()) / dense
    return facts | {"groups": len(found.groups), "kept": kept, "runs": _runs(small, inputs), "exports": watch.exports}


def run_torch_pruning(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """Build torch-pruning's graph and prune 30 % by magnitude with its default settings, all but the last layer.

    The graph is built once more inside its pruner: that second build is taken off again.
    """
    tp = imported("torch_pruning")
    dense = sum(p.numel() for p in model.parameters())
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    clock, start = time.perf_counter(), time.process_time()
    tp.DependencyGraph().build_dependency(model, example_inputs=inputs[0])
    build, build_clock = time.process_time() - start, time.perf_counter() - clock
    importance = tp.importance.MagnitudeImportance(p=2)
    clock, start = time.perf_counter(), time.process_time()
    pruner = tp.pruner.MagnitudePruner(model, inputs[0], importance=importance, pruning_ratio=SHARE, ignored_layers=[last])
    pruner.step()
    both, both_clock = time.process_time() - start, time.perf_counter() - clock
    kept = sum(p.numel() for p in model.parameters()) / dense
    prune = max(both - build, 0.0)
    facts = {"seconds": build + prune, "wall": max(both_clock, build_clock), "phases": {"build": build, "prune": prune}}
    return facts | {"kept": kept, "runs": _runs(model, inputs)}


def _runs(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a cut model still computes something."""
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    except Exception:  # foreign code on a network that may be broken
        return False
    return True


def measure(build: Callable[[], nn.Module], inputs: Callable[[], tuple[Tensor, ...]], systems: list[str], rounds: int) -> dict[str, Any]:
    """Let the systems take turns; return a list of rounds for each."""
    found: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    torch.set_num_threads(1)
    for turn in range(rounds):
        for system in systems[turn % len(systems) :] + systems[: turn % len(systems)]:
            torch.manual_seed(turn)
            model, example = build().eval(), inputs()
            gc.collect()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = run_torch_pruning(model, example) if system == "torch-pruning" else run_ours(model, example, system)
            found[system].append(run)
    return {"parameters": sum(p.numel() for p in build().parameters()), "rounds": found}


def warm_up() -> None:
    """Run every system once on a small network: what is imported on first use is not measured."""

    def small() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))

    measure(small, lambda: (torch.randn(1, 3, 8, 8),), [*MODES, "torch-pruning"], 1)
    measure(lambda: llama(1), tokens, [MODES[1]], 1)


def net_run(net: str, rounds: int) -> dict[str, Any]:
    """Measure one network of the table with all systems."""
    entry = NETS[net]
    return {"label": entry.label} | measure(entry.build, entry.inputs, [*MODES, "torch-pruning"], rounds)


def depth_run(layers: int, rounds: int) -> dict[str, Any]:
    """Measure a Llama of so many layers, quantized."""
    return {"layers": layers} | measure(lambda: llama(layers), tokens, [MODES[1]], rounds)
