"""The fashion benchmark for those who run one column of it: data, network, columns and rows, and the runs that are kept.

The commands are ``fashion_table``'s; this is what a notebook or a pipeline needs of them.
"""

from geta_nb.bench.fashion_rows import COLUMNS, FULL_COLUMN, ROWS, Planned
from geta_nb.bench.fashion_table import Bench, with_own_options
from geta_nb.bench.fashion_task import (
    BATCH,
    EPOCHS,
    LEARNING_RATE,
    SIDE,
    SMOKE_EPOCHS,
    SMOKE_IMAGES,
    TEST,
    TRAIN,
    WEIGHT_DECAY,
    Fashion,
    fashion_net,
)
from geta_nb.bench.geta_run import as_result, schedule_down_to
from geta_nb.bench.idx_files import write_idx
from geta_nb.bench.small_net import CLASSES

__all__ = [
    "BATCH",
    "CLASSES",
    "COLUMNS",
    "EPOCHS",
    "FULL_COLUMN",
    "LEARNING_RATE",
    "ROWS",
    "SIDE",
    "SMOKE_EPOCHS",
    "SMOKE_IMAGES",
    "TEST",
    "TRAIN",
    "WEIGHT_DECAY",
    "Bench",
    "Fashion",
    "Planned",
    "as_result",
    "fashion_net",
    "schedule_down_to",
    "with_own_options",
    "write_idx",
]
