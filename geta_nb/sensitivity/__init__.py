"""Stage 10: how much the loss rises where a network becomes small: at fewer bits of a layer, at fewer groups of a family.

In: the analysed model, the user's batches and loss. Out: a :class:`Sensitivity`: rises in units of the loss, measured or estimated from
gradients; what a plan of bits and groups would cost in loss, the front of loss against cost, and a budget from it.
"""

from geta_nb.sensitivity.front import Front, FrontPoint
from geta_nb.sensitivity.losses import Losses
from geta_nb.sensitivity.measure import BITS, KEPT, Asked, find_sensitivity, real_rises
from geta_nb.sensitivity.result import Sensitivity

__all__ = ["BITS", "KEPT", "Asked", "Front", "FrontPoint", "Losses", "Sensitivity", "find_sensitivity", "real_rises"]
