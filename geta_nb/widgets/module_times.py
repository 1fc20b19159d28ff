"""How long each module takes in torch, measured on the example inputs with hooks that go again.

In: a ``GETA``. Out: milliseconds by module path. The model is in eval mode meanwhile, and as it was afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from geta_nb.errors import RunStateError
from geta_nb.geta import GETA
from geta_nb.quantizers import eval_mode
from geta_nb.widgets.attempt import run_over

_ROUNDS, _SECONDS = 9, 5.0


def module_times(geta: GETA) -> tuple[dict[str, float], str]:
    """Return milliseconds of one call of every innermost module, median of up to nine forward passes, and their unit.

    Quantized weights are computed once, before; quantizers of inputs are simulated, and count. What a module is called several times for
    is added up.

    Raises:
        RunStateError: a run trains this network, whose modules it would switch to eval mode.
    """
    if run_over(geta) is not None:
        hint = "run.stop(), or await its end"
        raise RunStateError("Explorer.overlay: a run trains this network.", expected="a network at rest", hint=hint)
    leaves = _leaves(geta)
    rounds: list[dict[str, float]] = []
    started = time.perf_counter()
    with torch.no_grad(), eval_mode(geta.model), parametrize.cached():
        geta.model(*geta.example_inputs, **geta.example_kwargs)
        while len(rounds) < _ROUNDS and (not rounds or time.perf_counter() - started < _SECONDS):
            with _timed(leaves) as spent:
                geta.model(*geta.example_inputs, **geta.example_kwargs)
            rounds.append(dict(spent))
    return {path: 1000 * median(spent.get(path, 0.0) for spent in rounds) for path in rounds[0]}, "ms"


def _leaves(geta: GETA) -> dict[str, nn.Module]:
    """Modules that run vertices of the graph, and hold no module that runs some; one that has several paths under the first."""
    paths = {vertex.module_path for vertex in geta.qadg.vertices if vertex.module_path}
    above = {path[:end] for path in paths for end in range(len(path)) if path[end] == "."}
    known = dict(geta.model.named_modules(remove_duplicate=False))
    found = {id(known[path]): path for path in sorted(paths - above, reverse=True) if path in known}
    return {path: known[path] for path in sorted(found.values())}


@contextmanager
def _timed(leaves: dict[str, nn.Module]) -> Iterator[dict[str, float]]:
    spent: dict[str, float] = {}
    begun: dict[str, float] = {}
    wait = torch.cuda.synchronize if torch.cuda.is_available() else _nothing

    def before(path: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            wait()
            begun[path] = time.perf_counter()

        return note

    def after(path: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            wait()
            spent[path] = spent.get(path, 0.0) + time.perf_counter() - begun.pop(path)

        return note

    handles = [module.register_forward_pre_hook(before(path)) for path, module in leaves.items()]
    handles += [module.register_forward_hook(after(path)) for path, module in leaves.items()]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _nothing() -> None:
    """On a CPU nothing is waited for."""
