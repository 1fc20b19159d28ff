"""What the deployment notebook measures of a compressed network: files and their sizes, and accuracy in each runtime.

In: a subnet, the dense network it came from, a folder. Out: files, a picture of their sizes, accuracies.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from geta_nb.display.charts import Column, Series, bar_table
from geta_nb.display.theme import BLUE, GREY
from geta_nb.display.wording import size
from geta_nb.files import save
from geta_nb.latency.runs import without_quantizers
from geta_nb.latency.runtimes import Run, open_onnxruntime, open_openvino
from geta_nb.onnx import dense_onnx, export_onnx

RUNTIMES: dict[str, Callable[..., Run]] = {"ONNX Runtime": open_onnxruntime, "OpenVINO": open_openvino}


def write_files(subnet: nn.Module, dense: nn.Module, folder: Path, example: Tensor) -> dict[str, Path]:
    """Write both networks in every form there is: form -> file."""
    plain = without_quantizers(dense)
    buffer = io.BytesIO()
    torch.save(plain.state_dict(), buffer)
    (folder / "dense.pt").write_bytes(buffer.getvalue())
    return {
        "dense fp32, torch.save": folder / "dense.pt",
        "dense fp32, ONNX": dense_onnx(plain, folder / "dense.onnx", (example,), {}),
        "compressed, ONNX": export_onnx(subnet, folder / "compressed.onnx", example, dynamic=False),
        "compressed, gt.save": save(subnet, folder / "compressed.safetensors"),
    }


def sizes_picture(files: Mapping[str, Path]) -> str:
    """Return an SVG with a bar a file."""
    sizes = [float(path.stat().st_size) for path in files.values()]
    dense = [value if name.startswith("dense") else None for name, value in zip(files, sizes, strict=True)]
    small = [None if value is not None else other for value, other in zip(dense, sizes, strict=True)]
    series = [Series(GREY, "dense fp32", dense), Series(BLUE, "compressed", small)]
    texts = [f"{size(int(value))}, {value / sizes[0]:.1%}" for value in sizes]
    words = ", ".join(f"{name} {text}" for name, text in zip(files, texts, strict=True))
    return bar_table(list(files), [Column("bytes on disk", series, texts)], label=f"sizes: {words}", bar_room=300)


def accuracies(path: Path, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the accuracy of an ONNX file in both runtimes."""
    feed = {onnx.load(path).graph.input[0].name: images.numpy()}
    found = {name: opener(path)(feed)[0] for name, opener in RUNTIMES.items()}
    return {name: float((output.argmax(1) == labels.numpy()).mean()) for name, output in found.items()}
