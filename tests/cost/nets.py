"""Networks small enough to price by hand: cost facts written out, without a trace.

``three_layers``: conv1 (3 -> 4, 3x3, same) on 8 x 8, conv2 (4 -> 6, 3x3, same), mean over the plane, fc (6 -> 10).
Groups 0..3 are the filters of conv1, groups 4..9 those of conv2.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from geta_nb.cost.model import CostModel
from geta_nb.cost.totals import OperatorCost, ParameterCost
from geta_nb.groups.labels import Extent


def ids(*values):
    return np.array(values, dtype=np.int64)


CONV1, CONV2 = np.arange(4), np.arange(4, 10)
EVERY = {"conv1", "conv2", "fc"}


def three_layers(*, dense=None):
    operators = [
        # MACs: 64 positions * 9 taps * 3 channels in * 4 out = 6912; 64 * 9 * 4 * 6 = 13824; 6 * 10 = 60. Together 20796.
        OperatorCost("conv1", "conv1", "conv2d", Extent(64 * 9 * 3, (CONV1,)), "conv1", "conv1", channels=Extent(1, (CONV1,))),
        OperatorCost("conv2", "conv2", "conv2d", Extent(64 * 9, (CONV1, CONV2)), "conv2", "conv2", channels=Extent(1, (CONV2,))),
        OperatorCost("fc", "fc", "linear", Extent(10, (CONV2,)), "fc", "fc", channels=Extent(10)),
    ]
    parameters = [
        # Elements: 27 * 4 + 4 = 112; 9 * 4 * 6 + 6 = 222; 60 + 10 = 70. Together 404, 1616 bytes in fp32.
        ParameterCost("conv1.weight", Extent(27, (CONV1,)), "conv1"),
        ParameterCost("conv1.bias", Extent(1, (CONV1,))),
        ParameterCost("conv2.weight", Extent(9, (CONV2, CONV1)), "conv2"),
        ParameterCost("conv2.bias", Extent(1, (CONV2,))),
        ParameterCost("fc.weight", Extent(10, (CONV2,)), "fc"),
        ParameterCost("fc.bias", Extent(10)),
    ]
    return CostModel(operators, parameters, 10, dense=dense)


def three_layers_table():
    """The groups of ``three_layers`` with the fields of a ``GroupTable`` that prices need."""
    conv1, conv2 = CONV1, CONV2
    return SimpleNamespace(
        n_groups=10,
        family_of=np.array([0] * 4 + [1] * 6),
        family_names=["conv1", "conv2"],
        axis_maps=[
            SimpleNamespace(parameter="conv1.weight", axis=0, group_of_index=conv1, producing=True),
            SimpleNamespace(parameter="conv1.bias", axis=0, group_of_index=conv1, producing=True),
            SimpleNamespace(parameter="conv2.weight", axis=1, group_of_index=conv1, producing=False),
            SimpleNamespace(parameter="conv2.weight", axis=0, group_of_index=conv2, producing=True),
            SimpleNamespace(parameter="conv2.bias", axis=0, group_of_index=conv2, producing=True),
            SimpleNamespace(parameter="fc.weight", axis=1, group_of_index=conv2, producing=False),
        ],
        group_size=np.array([28] * 4 + [37] * 6),
    )


def alive_without(*dead, n_groups=10):
    alive = np.ones(n_groups, dtype=bool)
    alive[list(dead)] = False
    return alive
