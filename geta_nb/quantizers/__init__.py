"""Stage 3: numbers on few bits. The formula, its gradients, and the modules that stand on weights and inputs.

In: a model and the sites that its graph asks for. Out: the same model, quantization-aware in place, with its :class:`Quantizers`, which
can be calibrated, listed and taken off again.
"""

from geta_nb.quantizers.adapters import adapter_layers, adapter_parameters, without_adapters
from geta_nb.quantizers.adopted import Adopted, adopt, adopted_in, check_adapters, check_merged
from geta_nb.quantizers.aten import NUMBERS, WRITTEN_AT, branch_program
from geta_nb.quantizers.calibration import calibrate, eval_mode
from geta_nb.quantizers.fake_quant import bit_width, codes, fake_quantize, step_size
from geta_nb.quantizers.foreign import ComputedWeight, is_last, materialise, without_parametrizations
from geta_nb.quantizers.modules import ActivationQuantizer, Quantizer, WeightQuantizer
from geta_nb.quantizers.parametrized import (
    OwnTensors,
    canonical_name,
    computed,
    is_foreign,
    own_parameters,
    own_tensors,
    parameter_tensors,
    quantizers_at,
    tensors_of_groups,
    unregister,
)
from geta_nb.quantizers.prepare import IDLE, Quantizers, attach_quantizers
from geta_nb.quantizers.refit import Histogram, fitted_clip, largest_code
from geta_nb.quantizers.sites import CANDIDATE, WEIGHT, Asked, computed_weights, mark_of, marked, standing_in
from geta_nb.quantizers.starting import start_ranges

__all__ = [
    "CANDIDATE",
    "IDLE",
    "NUMBERS",
    "WEIGHT",
    "WRITTEN_AT",
    "ActivationQuantizer",
    "Adopted",
    "Asked",
    "ComputedWeight",
    "Histogram",
    "OwnTensors",
    "Quantizer",
    "Quantizers",
    "WeightQuantizer",
    "adapter_layers",
    "adapter_parameters",
    "adopt",
    "adopted_in",
    "attach_quantizers",
    "bit_width",
    "branch_program",
    "calibrate",
    "canonical_name",
    "check_adapters",
    "check_merged",
    "codes",
    "computed",
    "computed_weights",
    "eval_mode",
    "fake_quantize",
    "fitted_clip",
    "is_foreign",
    "is_last",
    "largest_code",
    "mark_of",
    "marked",
    "materialise",
    "own_parameters",
    "own_tensors",
    "parameter_tensors",
    "quantizers_at",
    "standing_in",
    "start_ranges",
    "step_size",
    "tensors_of_groups",
    "unregister",
    "without_adapters",
    "without_parametrizations",
]
