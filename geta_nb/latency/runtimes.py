"""Open an ONNX file in ONNX Runtime or OpenVINO, on one CPU, computing what the file says: no lower precision of the runtime's own choice.

Comes in: a file and a number of threads. Goes out: a function from numpy arrays by input name to a list of arrays. Serves ``runs``,
the tests and the deployment notebook; wants the extra ``export``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import openvino

from geta_nb.latency.signal_stack import kept_signal_stack

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], list[Array]]


def open_onnxruntime(path: str | Path, *, threads: int = 1, fold_weights: bool = False, profile: str = "") -> Run:
    """Return a function that runs the file in ONNX Runtime.

    Args:
        path: the file.
        threads: of one operator; operators run one after the other.
        fold_weights: turn codes into float32 weights when the file is opened, not at each call: faster where inputs are not quantized,
            and never in integers.
        profile: write a profile to a file with this prefix.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    if fold_weights:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        return list(session.run(None, dict(inputs)))

    run.session = session  # type: ignore[attr-defined]
    return run


def open_openvino(path: str | Path, *, threads: int = 1, profile: bool = False) -> Run:
    """Return a function that runs the file in OpenVINO.

    ``EXECUTION_MODE_HINT="ACCURACY"``: its default computes float32 in bfloat16 where the processor can, and quantizes the inputs of
    layers that were not quantized.
    """
    core = openvino.Core()
    options: dict[str, Any] = {
        "EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False, "PERF_COUNT": profile,
    }  # fmt: skip
    with kept_signal_stack():
        compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        request.infer(dict(inputs), share_inputs=True)
        return [np.array(request.get_output_tensor(index).data) for index in range(len(compiled.outputs))]

    run.request, run.compiled = request, compiled  # type: ignore[attr-defined]
    return run
