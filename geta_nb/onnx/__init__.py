"""Stage 11: one QDQ file that runtimes execute in integers. Needs the extra ``export``.

In: a subnet, or a file that was loaded. Out: an ONNX file, checked against the network that it came from; what a processor would add up
wrongly stays in float32.
"""

from geta_nb.onnx.decoder import dense_decoder, export_decoder
from geta_nb.onnx.export import dense_onnx, export_onnx

__all__ = [
    "dense_decoder",
    "dense_onnx",
    "export_decoder",
    "export_onnx",
]
