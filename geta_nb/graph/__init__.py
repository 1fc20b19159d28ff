"""Stage 1: a model as an ATen graph. Stands on ``errors`` and ``views`` alone.

In: any ``nn.Module`` with example inputs. Out: a :class:`Trace`, functional ATen with the model's own parameter names; a graph as plain
JSON and back; whether two modules compute the same. Quantizers, groups and costs are not known here.
"""

from geta_nb.graph.comparison import agree_in_float64, are_close, computed_dtypes, max_difference, outputs_of, own_forwards, wide_inside
from geta_nb.graph.draws import own_draws
from geta_nb.graph.expressions import names_in, value_of
from geta_nb.graph.fingerprint import Fingerprint, Own, Unreadable, fingerprint
from geta_nb.graph.inputs import check_inputs, example_arguments, note_taken, on_cpu, outputs_of_check
from geta_nb.graph.marks import drop_mark, is_mark, mark, mark_label, marked_value
from geta_nb.graph.nodes import (
    attribute_tensor,
    call_of,
    hint,
    module_path,
    operator_name,
    overload_name,
    owner_of,
    running_paths,
    shape_of,
    sizes_elsewhere,
)
from geta_nb.graph.objects import tensors_in
from geta_nb.graph.program import check_path, decode_program, encode_program
from geta_nb.graph.signs import nonnegative_nodes
from geta_nb.graph.sizes import InputSizes, decode_sizes, encode_sizes, sizes_of
from geta_nb.graph.trace import Sizes, Trace, TraceNode, branching_mode, eval_mode, export_program, trace_model
from geta_nb.graph.twins import compile_later

__all__ = [
    "Fingerprint",
    "InputSizes",
    "Own",
    "Sizes",
    "Trace",
    "TraceNode",
    "Unreadable",
    "agree_in_float64",
    "are_close",
    "attribute_tensor",
    "branching_mode",
    "call_of",
    "check_inputs",
    "check_path",
    "compile_later",
    "computed_dtypes",
    "decode_program",
    "decode_sizes",
    "drop_mark",
    "encode_program",
    "encode_sizes",
    "eval_mode",
    "example_arguments",
    "export_program",
    "fingerprint",
    "hint",
    "is_mark",
    "mark",
    "mark_label",
    "marked_value",
    "max_difference",
    "module_path",
    "names_in",
    "nonnegative_nodes",
    "note_taken",
    "on_cpu",
    "operator_name",
    "outputs_of",
    "outputs_of_check",
    "overload_name",
    "own_draws",
    "own_forwards",
    "owner_of",
    "running_paths",
    "shape_of",
    "sizes_elsewhere",
    "sizes_of",
    "tensors_in",
    "trace_model",
    "value_of",
    "wide_inside",
]
