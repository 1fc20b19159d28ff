"""The rows of the baselines' table on digits: which method with which options, at which costs, and the function that makes one number.

Options were chosen on the validation part of the training images (seed 0, the two hardest columns); what was tried stands beside each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from geta_nb.baselines import bayesian_bits, clipq, djpq, eagleeye, hesso, lsq, magnitude, minmax
from geta_nb.baselines.space import Space
from geta_nb.baselines.task import Result, Task
from geta_nb.bench.digits import EPOCHS, compress_digits, load_digits
from geta_nb.bench.digits_rows import compressed_run
from geta_nb.bench.digits_task import digits_task
from geta_nb.bench.geta_run import schedule_down_to
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import BudgetError
from geta_nb.qasso import Schedule

COLUMNS = ((0.083, False), (0.032, False), (0.016, False), (0.008, True))
"""(relative BOPs, whether inputs are quantized too) of each column."""


@dataclass(frozen=True)
class Method:
    """One row.

    Args:
        label: name in the table.
        compress: the method.
        options: its options.
        tried: what they were chosen from, on validation images.
        activations: whether it can quantize inputs; one that cannot spends the same cost on weights alone.
    """

    label: str
    compress: Callable[..., Result]
    options: Mapping[str, Any] = field(default_factory=dict)
    tried: str = "nothing to choose"
    activations: bool = True


METHODS = {
    "minmax": Method("min-max PTQ", minmax.compress),
    "magnitude": Method("magnitude groups, 8-bit PTQ", magnitude.compress, {"dense_share": 0.5}, "dense_share 0.33, 0.5"),
    "eagleeye": Method("EagleEye sampling, 8-bit PTQ", eagleeye.compress, {"least": 0.3}, "two ways of sampling, three ranges"),
    "lsq": Method("LSQ, fixed bits", lsq.compress, {"dense_share": 0.33}, "dense_share 0.33, 0.5"),
    "clipq": Method("CLIP-Q *", clipq.compress, {"bits": 3}, "bits 3, 4; dense_share 0.33, 0.5", activations=False),
    "djpq": Method("DJPQ", djpq.compress, {"gamma": 0.3}, "gamma 0.3, 1"),
    "hesso": Method("HESSO pruning, 8-bit PTQ", hesso.compress, {"saliency": "taylor"}, "saliency taylor, paper"),
    "bayesian_bits": Method("Bayesian Bits", bayesian_bits.compress, {"rate": 0.01}, "rate 0.01, 0.05; lr_gates 0.05, 0.2"),
}

OURS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "geta": ("GETA, this package's defaults", {}),
    "geta3": ("GETA, down to 3 bits, not 4", {"lowest_bits": 3}),
}
"""Rows of GETA: words and options. The second one shows what the lower end of the bits is worth, in the two hardest columns.

The lower end of ``bit_range`` alone changes nothing: bits end at the upper bound, which the default schedule lets fall by 12, from 16 to 4.
"""

CREDIT = "unstructured zeros are counted as costing no bit operation, which ordinary devices cannot skip; its weights alone are quantized"


@lru_cache(maxsize=2)
def _task(epochs: int) -> tuple[Task, Space]:
    task = digits_task(epochs=epochs)
    return task, Space(task)


def baseline_run(
    seed: int, method: str, relative_bops: float, *, activations: bool, options: Mapping[str, Any], epochs: int = EPOCHS
) -> dict[str, Any]:
    """Compress the benchmark's network by one method; JSON-able facts, ``out_of_reach`` where the method cannot meet the budget."""
    task, space = _task(epochs)
    try:
        result = METHODS[method].compress(task, relative_bops, seed=seed, activations=activations, space=space, **options)
    except BudgetError as error:
        return {"seed": seed, "out_of_reach": str(error)}
    return {"seed": seed} | result.to_dict()


def geta_run(
    seed: int, relative_bops: float, *, activations: bool, lowest_bits: int | None = None, epochs: int = EPOCHS
) -> dict[str, Any]:
    """Compress it by this package's defaults (the row "ours, defaults" of the digits table), or with bits that fall to ``lowest_bits``."""
    if lowest_bits is None:
        return compressed_run(seed, relative_bops, activations=activations, epochs=epochs)
    bits = (lowest_bits, 16)
    budget = Budget(relative_bops=relative_bops, bit_range=bits, activation_bit_range=bits)
    schedule = schedule_down_to(lowest_bits, Schedule.for_steps(epochs * load_digits().steps_per_epoch))
    return compress_digits(seed, budget, epochs=epochs, quantize=QuantConfig(activations=activations), schedule=schedule)
