"""One run of the fashion table, in a worker process: from names and numbers to JSON-able figures; and what its code is."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from geta_nb.baselines import bayesian_bits, clipq, djpq, eagleeye, hesso, lsq, magnitude, minmax, narrow
from geta_nb.baselines.space import OVER_BUDGET, Space
from geta_nb.baselines.task import Task
from geta_nb.bench import geta_again, geta_run
from geta_nb.bench.code_of import analysis_fingerprint, code_fingerprint
from geta_nb.bench.fashion_rows import COLUMNS
from geta_nb.bench.fashion_task import SIDE, fashion_net, fashion_task
from geta_nb.errors import BudgetError, InputError

METHODS: Mapping[str, Callable[..., Any]] = {
    "geta": geta_run.compress_task,
    "geta_again": geta_again.compress,
    "narrow": narrow.compress,
    "lsq": lsq.compress,
    "djpq": djpq.compress,
    "bayesian_bits": bayesian_bits.compress,
    "hesso": hesso.compress,
    "clipq": clipq.compress,
    "minmax": minmax.compress,
    "magnitude": magnitude.compress,
    "eagleeye": eagleeye.compress,
}


def what_decides(method: str, column: str, options: Mapping[str, Any]) -> str:
    """Return the fingerprint of a number: its method's code, the network's analysis, options and column."""
    target = COLUMNS[column]
    facts = [method, _code(method), _analysis(), dict(options), target.relative_bops, target.activations]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _code(method: str) -> str:
    return code_fingerprint([METHODS[method].__module__, fashion_task.__module__])


@cache
def _analysis() -> str:
    images = torch.zeros(2, 1, SIDE, SIDE)
    network_alone = Task(
        build=fashion_net, batches=lambda _: (), steps_per_epoch=0, calibration=images, check=(images, images), evaluate=lambda _: 0.0
    )
    return analysis_fingerprint(Space(network_alone))


@lru_cache(maxsize=1)
def _task(folder: str, validation: bool, smoke: bool) -> tuple[Task, Space]:
    task = fashion_task(Path(folder), validation=validation, smoke=smoke)
    return task, Space(task)


def fashion_run(
    method: str, column: str, seed: int, options: Mapping[str, Any], *, folder: str, validation: bool = False, smoke: bool = False,
    fingerprint: str,
) -> dict[str, Any]:
    """Make one number: ``accuracy``, what it costs, bits, notes; or ``out_of_reach`` where the method cannot meet the column.

    Args:
        method: a name of :data:`METHODS`.
        column: a name of ``fashion_rows.COLUMNS``.
        options: of the method.
        folder: of the data.
        validation: judged by the last training images, on which nothing is trained then.
        smoke: few images and epochs.
        fingerprint: what :func:`what_decides` said when the command began.

    Raises:
        InputError: the code is not what it was then.
    """
    if what_decides(method, column, options) != fingerprint:
        hint = "python -m geta_nb.bench.fashion_table"
        raise InputError("fashion_run: the package's files changed while the command ran.", at=f"{method} at {column}", hint=hint)
    task, space = _task(folder, validation, smoke)
    target, started = COLUMNS[column], time.perf_counter()
    more: dict[str, Any] = {} if method in ("geta", "geta_again") else {"space": space}
    more |= {"build": fashion_net} if method == "narrow" else {}
    try:
        found = METHODS[method](task, target.relative_bops, seed=seed, activations=target.activations, **more, **options)
    except BudgetError as error:
        if error.what.endswith(OVER_BUDGET):
            raise  # a defect of the method, not a limit
        return {"out_of_reach": f"{error.what} expected {error.expected}, got {error.got}"}
    figures: dict[str, Any] = found if isinstance(found, dict) else found.to_dict()
    return figures | {"seconds": round(time.perf_counter() - started, 1)}
