"""Side by side with peers: each one's own user code on the same trained network, data and epochs, and what came out in the same units.

In: a trained network, a way to train it further, a budget. Out: one row per peer: quality, relative BOPs, bytes on disk, latency, seconds
of analysis, lines of user code. The user code of each peer is the function ``user_code`` of ``peers_<name>.py``, as one would write it in a
notebook; its lines are counted from that very source. Costs are this package's cost model on what the peer made.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import logging
import os
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.bench import digits
from geta_nb.errors import InputError
from geta_nb.geta import GETA
from geta_nb.latency import kept_signal_stack

PEERS = {
    "geta": "geta-nb: joint pruning and mixed precision",
    "torch_pruning": "torch-pruning: magnitude pruning, fp32",
    "torchao": "torchao QAT (PT2E), int8",
    "nncf": "nncf QAT, int8, in OpenVINO",
    "openvino": "openvino with nncf PTQ, int8",
}
Train = Callable[..., None]


@dataclass(frozen=True)
class Given:
    """What every peer gets.

    Attributes:
        model: a trained network, the peer's own copy.
        train: ``train(model, optimizer=None)`` trains in place for the agreed epochs; the default optimizer is Adam.
        images: training images, [N, 3, 16, 16].
        steps: optimizer steps of one ``train``.
        relative_bops: the budget, paper's counting.
        file: where the result goes; the peer picks the ending.
        quick: leave out what takes long and changes no other figure.
    """

    model: nn.Module
    train: Train
    images: Tensor
    steps: int
    relative_bops: float
    file: Path
    quick: bool = False


@dataclass(frozen=True)
class Made:
    """What a peer made.

    Attributes:
        predict: images -> scores.
        relative_bops: by this package's cost model.
        files: what has to be shipped; empty where nothing was written.
        runtime: what ``predict`` runs in.
        facts: anything more, JSON-able.
    """

    predict: Callable[[Tensor], Tensor]
    relative_bops: float
    files: Sequence[Path]
    runtime: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One peer's figures; None where there is none, and then ``note`` says why."""

    name: str
    accuracy: float | None = None
    relative_bops: float | None = None
    file_bytes: int | None = None
    latency_ms: float | None = None
    runtime: str = ""
    analysis_seconds: float | None = None
    user_lines: int | None = None
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self)


BESIDE = Path(sys.prefix, "beside")
"""Where ``make`` puts torchao: transformers imports one that it finds, and every notebook would show what torchao complains of then."""


def optional(module: str) -> Any:
    """Return an optional package's module, quietly, and so that it sends nothing.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # nncf's switch for "no telemetry", read when it is imported
    extras = "bench,export"
    if module.partition(".")[0] == "torchao":
        extras = "torchao"
        if BESIDE.is_dir() and str(BESIDE) not in sys.path:
            sys.path.append(str(BESIDE))
    heard = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError:
        raise InputError(f"peers: {module} is not installed.", hint=f"pip install 'geta-nb[{extras}]'") from None
    finally:
        logging.disable(heard)


def user_lines(function: Callable[..., Any]) -> int:
    """Return how many lines of code a function's body has: no docstring, no comment, nothing empty."""
    source = textwrap.dedent(inspect.getsource(function))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    body = definition.body[1:] if ast.get_docstring(definition) is not None else definition.body
    lines = source.splitlines()[body[0].lineno - 1 : definition.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def price(network: nn.Module, dense: nn.Module, bits: Sequence[tuple[float, float]] | None = None) -> float:
    """Return relative BOPs of an fp32 structure whose operators, in order, have (weight, input) ``bits``; None: 32 all.

    Raises:
        InputError: another number of operators than of bits.
    """
    example = torch.zeros(2, *digits.IMAGE)
    small, whole = (GETA(copy.deepcopy(net), example, quantize=None).cost for net in (network, dense))
    counts = [op.macs.count(torch.ones(small.n_groups, dtype=torch.bool).numpy()) for op in small.operators]
    pairs = bits if bits is not None else [(32.0, 32.0)] * len(counts)
    if len(pairs) != len(counts):
        raise InputError("peers: bits of another network.", expected=f"{len(counts)} operators", got=len(pairs))
    return float(sum(n * w * a for n, (w, a) in zip(counts, pairs, strict=True)) / whole.dense.bops)


def latency(predict: Callable[[Tensor], Any], images: Tensor, *, repeats: int = 20) -> float:
    """Return the median milliseconds of one batch, after three to warm up."""
    times = []
    for number in range(repeats + 3):
        start = time.perf_counter()
        predict(images)
        times.append(time.perf_counter() - start)
        if number == 2:
            times.clear()
    return 1000 * median(times)


def run_peer(name: str, given: Given, data: digits.Digits, **options: Any) -> Row:
    """Let one peer compress, and measure what it made; a peer that fails gives a row that says so."""
    module = importlib.import_module(f"geta_nb.bench.peers_{name}")
    dense, clock = copy.deepcopy(given.model), _TrainClock(given.train)
    timed = Given(**{**vars(given), "train": clock})
    try:
        getattr(module, "prepare", lambda: None)()
        start = time.perf_counter()
        with kept_signal_stack(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # foreign code
            product = module.user_code(timed, **options)
            seconds = time.perf_counter() - start - clock.seconds
            made: Made = module.describe(product, given, dense)
            scores = made.predict(data.test_images)
            milliseconds = latency(made.predict, data.test_images[:64])
    except Exception as error:  # foreign code may fail in any way, and the others shall run
        return Row(name, note=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}")
    return Row(
        name,
        accuracy=float((scores.argmax(1) == data.test_labels).float().mean()),
        relative_bops=made.relative_bops,
        file_bytes=sum(path.stat().st_size for path in made.files) if made.files else None,
        latency_ms=milliseconds,
        runtime=made.runtime,
        analysis_seconds=seconds,
        user_lines=user_lines(module.user_code),
        extra=dict(made.facts),
        note="" if made.relative_bops <= given.relative_bops else "over the budget: the least it can do",
    )


class _TrainClock:
    """A training function that counts its own seconds."""

    def __init__(self, train: Train) -> None:
        self._train, self.seconds = train, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        self._train(*args, **kwargs)
        self.seconds += time.perf_counter() - start


def in_torch(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a module's forward in evaluation, without gradients."""
    model.eval()

    def predict(images: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = model(images)
        return result

    return predict
