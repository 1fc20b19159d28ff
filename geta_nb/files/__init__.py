"""Stage 8: networks and runs on disk. Packed integers, checkpoints, folders for ``from_pretrained``. Nothing is ever unpickled.

In: a subnet, or the state of a run. Out: one safetensors file with a JSON header and a seal, written whole or not at all, and the way
back from it.
"""

from geta_nb.files import checkpoint, distributed, random_state
from geta_nb.files.checkpoint import check_qasso_part, first_difference
from geta_nb.files.packing import MAX_BITS, pack, unpack
from geta_nb.files.pretrained import save_pretrained
from geta_nb.files.save_load import load, own_graph, save
from geta_nb.files.tensor_table import weight_codes

__all__ = [
    "MAX_BITS",
    "check_qasso_part",
    "checkpoint",
    "distributed",
    "first_difference",
    "load",
    "own_graph",
    "pack",
    "random_state",
    "save",
    "save_pretrained",
    "unpack",
    "weight_codes",
]
