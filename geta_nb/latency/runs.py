"""``gt.benchmark_latency``: a subnet beside the dense float32 network it came from, in torch and in the runtimes that read ONNX.

Comes in: two modules and example inputs. Goes out: a table of milliseconds that shows itself. All systems have the same threads and inputs
and take turns, so that whatever else the machine does hits them alike; a speed-up is the median of the ratios of neighbours in time.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from geta_nb.config import QuantConfig
from geta_nb.errors import ConfigError, InputError
from geta_nb.files import own_graph
from geta_nb.graph import eval_mode, example_arguments, on_cpu, tensors_in
from geta_nb.latency.runtimes import Array, Run, open_onnxruntime, open_openvino
from geta_nb.latency.table import CLOCKS, Call, Clock, LatencyRow, LatencyTable, ratio_of, take_turns
from geta_nb.onnx import dense_onnx, export_onnx
from geta_nb.quantizers import attach_quantizers

BACKENDS = ("torch", "onnxruntime", "openvino")


def benchmark_latency(
    subnet: nn.Module,
    *,
    example_inputs: Any,
    against: nn.Module | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    backends: Sequence[str] = BACKENDS,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = 15,
    threads: int = 1,
    clock: str = "wall",
) -> LatencyTable:
    """Measure how long a call of ``subnet`` takes, beside the dense network.

    Args:
        subnet: what ``construct_subnet`` or :func:`geta_nb.load` returned.
        example_inputs: a tensor or a tuple of positional inputs, batch axis first; they are repeated or cut to each batch size.
        against: the dense network; quantizers on it are left out of a copy, so the trained model itself will do.
        example_kwargs: keyword inputs.
        backends: some of "torch", "onnxruntime", "openvino".
        batch_sizes: samples of a call.
        rounds: how often every system has its turn, after two that do not count.
        threads: of every system.
        clock: "wall", or "processor" for the time that this process computed: fair on a busy machine when ``threads`` is 1.

    Returns:
        A table that shows itself.

    Raises:
        ConfigError: an unknown backend, a number that is none, or a size that an ONNX file with a fixed batch does not have.
        ArtifactError: the network cannot be exported.
        InputError: the subnet rejects the example inputs.
    """
    _check(backends, batch_sizes, rounds, threads, clock)
    args, kwargs = example_arguments(example_inputs, example_kwargs)
    if against is not None and not isinstance(against, nn.Module):
        raise ConfigError("benchmark_latency: against.", expected="a torch.nn.Module, or None", got=type(against).__name__)
    _, info = own_graph(subnet, "benchmark_latency")
    if against is not None:
        against, *_ = on_cpu(against, (), {})
    subnet, args, kwargs = on_cpu(subnet, args, kwargs)
    modules: dict[str, nn.Module] = {"subnet": subnet} | ({} if against is None else {"dense": without_quantizers(against)})
    with tempfile.TemporaryDirectory() as folder, _torch_threads(threads):
        files: dict[str, Path] = {}
        if set(backends) - {"torch"}:
            files["subnet"] = export_onnx(
                subnet, Path(folder) / "subnet.onnx", args, example_kwargs=kwargs, integer_biases=True, dynamic=False
            )
            if "dense" in modules:
                files["dense"] = dense_onnx(modules["dense"], Path(folder) / "dense.onnx", args, kwargs)
        for path in files.values():
            _check_open_batch(onnx.load(path), batch_sizes)
        runs = {
            (backend, side): _open(backend, path, threads, fold=side == "subnet" and not info.activation_formats)
            for backend in backends if backend != "torch" for side, path in files.items()
        }
        sizes = {side: path.stat().st_size for side, path in files.items()}
        names = {side: [item.name for item in onnx.load(path).graph.input] for side, path in files.items()}
        rows: list[LatencyRow] = []
        for batch in batch_sizes:
            rows += _rows(batch, backends, _systems(modules, runs, names, _sized(args, kwargs, batch)), rounds, CLOCKS[clock])
    return LatencyTable(tuple(rows), threads, rounds, clock, sizes, _versions(backends))


def _check(backends: Sequence[str], batch_sizes: Sequence[int], rounds: int, threads: int, clock: str) -> None:
    if clock not in CLOCKS:
        raise ConfigError("benchmark_latency: clock.", expected=" or ".join(CLOCKS), got=repr(clock))
    if isinstance(backends, str) or not backends or not set(backends) <= set(BACKENDS):
        raise ConfigError("benchmark_latency: backends.", expected=f"some of {', '.join(BACKENDS)}", got=repr(backends))
    numbers = {"batch_sizes": list(batch_sizes), "rounds": [rounds], "threads": [threads]}
    for name, values in numbers.items():
        if not values or not all(isinstance(value, int) and value >= 1 for value in values):
            raise ConfigError(f"benchmark_latency: {name}.", expected="whole numbers >= 1", got=repr(values))


def _check_open_batch(model: onnx.ModelProto, batch_sizes: Sequence[int]) -> None:
    why = next((item.value for item in model.metadata_props if item.key == "fixed_batch"), None)
    sizes = sorted({item.type.tensor_type.shape.dim[0].dim_value for item in model.graph.input if item.type.tensor_type.shape.dim})
    if why is not None and sizes and set(batch_sizes) != set(sizes):
        raise ConfigError(
            "benchmark_latency: batch_sizes.", expected=f"{' and '.join(map(str, sizes))} alone, as the ONNX file has it ({why})",
            got=repr(list(batch_sizes)), hint=f"batch_sizes=({sizes[0]},), or other example inputs; backends=('torch',) takes any size",
        )


def without_quantizers(model: nn.Module) -> nn.Module:
    """Return a copy of a network without quantizers on weights and inputs, in eval mode: the dense float32 network."""
    twin = copy.deepcopy(model)
    quantizers = attach_quantizers(twin, QuantConfig(weights=False))  # takes over those that are there
    for layer in list(quantizers.activations):
        quantizers.detach_activation(layer)
    for layer in list(quantizers.weights):
        quantizers.detach_weight(layer)
    return twin.eval()


def _open(backend: str, path: Path, threads: int, *, fold: bool) -> Run:
    return open_openvino(path, threads=threads) if backend == "openvino" else open_onnxruntime(path, threads=threads, fold_weights=fold)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sized(args: Any, kwargs: Any, batch: int) -> tuple[Any, Any]:
    """Return the inputs with ``batch`` samples: the given ones over and over."""

    def size(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0:
            return leaf
        return leaf[torch.arange(batch, device=leaf.device) % len(leaf)].contiguous()

    sized: tuple[Any, Any] = pytree.tree_map(size, (args, kwargs))
    return sized


def _systems(
    modules: Mapping[str, nn.Module], runs: Mapping[tuple[str, str], Run], names: Mapping[str, list[str]], inputs: Any
) -> dict[tuple[str, str], Call]:
    """Return what takes turns, (backend, side) -> a call; eager torch is always among them, because its outputs are the reference."""
    args, kwargs = inputs
    arrays: list[Array] = [leaf.numpy() for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]

    def in_torch(module: nn.Module) -> Call:
        def call() -> Any:
            with torch.inference_mode():
                return [leaf.numpy() for leaf in tensors_in(module(*args, **kwargs))]

        return call

    def in_runtime(run: Run, side: str) -> Call:
        if len(names[side]) != len(arrays):
            got = f"{len(arrays)} tensors"
            raise InputError("benchmark_latency: the file has other inputs than the module.", expected=names[side], got=got)
        feed = dict(zip(names[side], arrays, strict=True))
        return lambda: run(feed)

    systems = {("torch", side): in_torch(module) for side, module in modules.items()}
    return systems | {key: in_runtime(run, key[1]) for key, run in runs.items()}


def _rows(batch: int, backends: Sequence[str], systems: Mapping[tuple[str, str], Call], rounds: int, clock: Clock) -> Iterator[LatencyRow]:
    with _evaluating(systems):
        expected = systems["torch", "subnet"]()
        differences = {backend: _difference(systems[backend, "subnet"](), expected) for backend in backends}
        times = take_turns(systems, rounds, clock)
    eager = times.get(("torch", "dense"))
    for backend in backends:
        dense, mine = times.get((backend, "dense")), times[backend, "subnet"]
        milliseconds = [None if times_ is None else 1000 * median(times_) for times_ in (dense, mine)]
        assert milliseconds[1] is not None
        ratios = ratio_of(dense, mine), ratio_of(eager, mine)
        yield LatencyRow(backend, batch, milliseconds[0], milliseconds[1], *ratios, differences[backend])


@contextmanager
def _evaluating(systems: Mapping[tuple[str, str], Call]) -> Iterator[None]:
    """Put the modules behind the calls into eval mode."""
    held = [cell.cell_contents for call in systems.values() for cell in call.__closure__ or ()]
    with eval_mode(nn.ModuleList([module for module in held if isinstance(module, nn.Module)])):
        yield


def _difference(found: list[Array], expected: list[Array]) -> float:
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if b.size]
    return max((float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30)) for a, b in pairs), default=0.0)


def _versions(backends: Sequence[str]) -> dict[str, str]:
    return {package: metadata.version(package) for package in ("torch", *(name for name in backends if name != "torch"))}
