"""Small networks with groups, quantizers and costs written out by hand, for the optimizer's tests.

``convolutional``: conv1 (3 -> 6, with batch norm), conv2 (6 -> 8), mean over the plane, head (8 -> 4); groups 0..5 and 6..13.
``mixed_layouts``: heads of two rows each (6 heads of a 12-wide projection), and a ConvTranspose1d whose filters lie on axis 1.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.cost.model import CostModel
from geta_nb.cost.totals import OperatorCost, ParameterCost
from geta_nb.groups.labels import Extent
from geta_nb.groups.table import AxisMap, GroupTable
from geta_nb.qasso.optimizer import QASSO
from geta_nb.qasso.schedule import Schedule
from geta_nb.quantizers.parametrized import parameter_tensors
from geta_nb.quantizers.prepare import attach_quantizers


def table(families, maps, sizes):
    """families: names with their number of groups; maps: (parameter, axis, group of each index, producing)."""
    names, counts = list(families), list(families.values())
    family_of = np.repeat(np.arange(len(names)), counts)
    axis_maps = [AxisMap(name, axis, np.asarray(groups, dtype=np.int64), producing) for name, axis, groups, producing in maps]
    return GroupTable(len(family_of), family_of, names, names, axis_maps, np.repeat(sizes, counts), np.arange(0))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.norm(self.conv1(x)))))
        return self.head(x.mean((2, 3)))


FIRST, SECOND = np.arange(6), np.arange(6, 14)


def convolutional_table():
    producing = [("conv1.weight", FIRST), ("conv1.bias", FIRST), ("norm.weight", FIRST), ("norm.bias", FIRST)]
    producing += [("conv2.weight", SECOND), ("conv2.bias", SECOND)]
    maps = [(name, 0, groups, True) for name, groups in producing]
    maps += [("norm.running_mean", 0, FIRST, False), ("conv2.weight", 1, FIRST, False), ("head.weight", 1, SECOND, False)]
    return table({"conv1": 6, "conv2": 8}, maps, [27 + 3 + 72, 54 + 1 + 4])


def convolutional_cost():
    operators = [
        OperatorCost("conv1", "conv1", "conv2d", Extent(64 * 27, (FIRST,)), "conv1", "conv1"),
        OperatorCost("conv2", "conv2", "conv2d", Extent(64 * 9, (FIRST, SECOND)), "conv2", "conv2"),
        OperatorCost("head", "head", "linear", Extent(4, (SECOND,)), "head", "head"),
    ]
    parameters = [
        ParameterCost("conv1.weight", Extent(27, (FIRST,)), "conv1"),
        ParameterCost("conv2.weight", Extent(9, (FIRST, SECOND)), "conv2"),
        ParameterCost("head.weight", Extent(4, (SECOND,)), "head"),
        ParameterCost("conv1.bias", Extent(1, (FIRST,))),
        ParameterCost("norm.weight", Extent(1, (FIRST,))),
        ParameterCost("norm.bias", Extent(1, (FIRST,))),
        ParameterCost("conv2.bias", Extent(1, (SECOND,))),
        ParameterCost("head.bias", Extent(4)),
    ]
    return CostModel(operators, parameters, 14)


class MixedLayouts(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.out, self.up = nn.Linear(5, 12), nn.Linear(12, 4), nn.ConvTranspose1d(4, 7, 2)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        hidden = torch.relu(self.out(torch.relu(self.project(x))))
        return self.head(torch.relu(self.up(hidden[:, :, None])).mean(2))


def mixed_table():
    heads, filters = np.repeat(np.arange(6), 2), np.arange(6, 13)
    maps = [("project.weight", 0, heads, True), ("project.bias", 0, heads, True), ("out.weight", 1, heads, False)]
    maps += [("up.weight", 1, filters, True), ("up.bias", 0, filters, True), ("head.weight", 1, filters, False)]
    return table({"project": 6, "up": 7}, maps, [12 + 8, 9 + 3])


NETS = {
    "convolutional": (Convolutional, convolutional_table, lambda: torch.randn(8, 3, 8, 8), 4),
    "mixed": (MixedLayouts, mixed_table, lambda: torch.randn(8, 5), 3),
}
SHORT = Schedule(2, 9, 3, 10, 3, 4)
END = SHORT.cool_down_start
COLLAPSES = "ignore:QASSO. a layer collapses:geta_nb.errors.CollapseWarning"  # families of six and eight: some budgets leave one group


def compress(
    net="convolutional",
    *,
    seed=0,
    config=None,
    inner=torch.optim.Adam,
    lr=1e-2,
    budget=None,
    schedule=SHORT,
    build=None,
    double=False,
    **options,
):
    """Return the network, its optimizer and a ``train(steps)`` that goes on with the same stream of batches."""
    torch.manual_seed(seed)
    module, make_table, batch, classes = NETS[net]
    model = module().double() if double else module()
    names = dict(model.named_parameters())
    quantizers = attach_quantizers(model, config) if config else None
    for quantizer in quantizers.activations.values() if quantizers else ():
        quantizer.set_range(3.0)
        quantizer.calibrated = True
    own = [p for name, p in parameter_tensors(model).items() if name in names]
    optimizer = build(own) if build else inner(own, lr=lr)
    cost = convolutional_cost() if net == "convolutional" else None
    qasso = QASSO(
        optimizer, table=make_table(), parameters=parameter_tensors(model), quantizers=quantizers, cost=cost,
        budget=budget or Budget(0.5), schedule=schedule, **options,
    )  # fmt: skip
    stream = torch.Generator().manual_seed(seed + 1)

    def train(steps, *, use_closure=False, after=lambda: None):
        for _ in range(steps):
            state = torch.get_rng_state()
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=stream)))
            x, y = batch(), torch.randint(classes, (8,))
            torch.set_rng_state(state)
            x = x.double() if double else x

            def closure(x=x, y=y):
                qasso.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            if use_closure:
                qasso.step(closure)
            else:
                closure()
                qasso.step()
            after()

    return SimpleNamespace(model=model, optimizer=qasso, train=train, stream=stream, quantizers=quantizers, table=make_table())


def parameters_of(model):
    return {name: p.detach().clone() for name, p in parameter_tensors(model).items()}


def zero_groups(run):
    """Which groups are exactly zero in all their producing slices, read from the weights themselves."""
    zero = np.ones(run.table.n_groups, dtype=bool)
    tensors = parameter_tensors(run.model)
    for entry in run.table.axis_maps:
        if entry.producing:
            slices = tensors[entry.parameter].detach().movedim(entry.axis, 0).reshape(len(entry.group_of_index), -1)
            for group, values in zip(entry.group_of_index, slices, strict=True):
                zero[group] &= bool((values == 0).all()) if group >= 0 else True
    return zero


WEIGHTS = QuantConfig()
BOTH = QuantConfig(activations=True)


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
