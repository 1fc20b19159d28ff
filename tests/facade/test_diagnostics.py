"""What a run says of itself: progress costs nothing unread, a layer that collapses is named once, with the line that prevents it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import geta_nb as gt
from geta_nb.errors import CollapseWarning
from geta_nb.qasso import optimizer as optimizer_module
from geta_nb.qasso.projection import QuantizerBank
from tests.small_nets import IMAGES, cnn, train

SCHEDULE = gt.Schedule(2, 4, 2, 8, 2)
FALLS = (3, 5)  # steps at whose end the bound of the bits falls


class Waits(TorchDispatchMode):
    """Counts the operators that make the host wait for a device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._overloadpacket._qualified_op_name in {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}
        return func(*args, **(kwargs or {}))


def started(budget: gt.Budget, **options: Any) -> tuple[gt.GETA, gt.QASSO]:
    geta = gt.GETA(cnn(), IMAGES)
    return geta, geta.qasso(torch.optim.SGD, lr=1e-2, budget=budget, schedule=SCHEDULE, **options)


def test_nothing_is_gathered_for_progress_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    geta, optimizer = started(gt.Budget(0.5))
    optimizer.check_finite = False
    asked: list[str] = []
    bits = QuantizerBank.bits
    monkeypatch.setattr(QuantizerBank, "bits", lambda self: asked.append("bits") or bits(self))
    monkeypatch.setattr(optimizer_module.QASSO, "progress", lambda self: asked.append("progress"))
    waits = []
    for step in range(17):
        train(geta.model, _Nothing(optimizer), [step])  # gradients
        before = len(asked)
        with Waits() as mode:
            optimizer.step()
        waits.append(mode.count)
        # the bits are read where their bound falls, to fit the ranges of those that are above it, and once to be fixed
        assert len(asked) == before or step in (*FALLS, 13)
    # the joint stage is steps 6 .. 13, in periods of four: where one begins groups are chosen, where one ends masks are made
    assert [step for step, count in enumerate(waits) if count] == sorted({*FALLS, 6, 9, 10, 13})


class _Nothing:
    """Lets a training step compute gradients without stepping."""

    def __init__(self, optimizer: gt.QASSO) -> None:
        self.zero_grad, self.step = optimizer.zero_grad, lambda: None


def test_reading_progress_changes_nothing() -> None:
    ends = []
    for read in (False, True):
        torch.manual_seed(0)
        geta, optimizer = started(gt.Budget(0.5))
        for step in range(16):
            train(geta.model, optimizer, [step])
            if read:
                assert optimizer.progress() == optimizer.progress()
        ends.append(geta.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_layer_that_collapses_is_named_once_with_the_line_that_prevents_it() -> None:
    geta, optimizer = started(gt.Budget(14 / 16))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(geta.model, optimizer, range(16))
    collapses = [entry for entry in said if entry.category is CollapseWarning]
    assert len(collapses) == 2 == len({str(entry.message) for entry in collapses})
    for entry, layer in zip(sorted(collapses, key=lambda e: str(e.message)), ("0", "3"), strict=True):
        lines = str(entry.message).splitlines()
        assert lines[0] == "QASSO: a layer collapses: all that it makes goes, but for one group."
        assert lines[1].startswith("  at:       ") and ", step 1" in lines[1] and lines[2] == "  got:      1 of 8 groups left"
        assert lines[3] == f'  try:      Budget(..., exceptions={{"{layer}": LayerBudget(max_sparsity=0.93)}})'


def test_an_exception_as_proposed_prevents_the_collapse() -> None:
    """13 of 16 filters go: one of two layers of eight keeps one. With the exception on that layer it is the other."""
    (layer,) = _one_left(*started(gt.Budget(13 / 16)))
    (other,) = _one_left(*started(gt.Budget(13 / 16, exceptions={layer: gt.LayerBudget(max_sparsity=0.75)})))
    assert {layer, other} == {"0", "3"}


def _one_left(geta: gt.GETA, optimizer: gt.QASSO) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        train(geta.model, optimizer, range(16))
    return [f.module_path for f in geta.families if sum(optimizer.group_mask[g.index] for g in f.groups) == 1]


@pytest.mark.parametrize(
    "budget", [gt.Budget(0.75), gt.Budget(14 / 16, exceptions={"*": gt.LayerBudget(max_sparsity=1.0)})], ids=["normal", "asked for"]
)
def test_a_run_that_does_not_collapse_or_was_told_to_says_nothing(budget: gt.Budget) -> None:
    torch.manual_seed(0)
    geta, optimizer = started(budget)  # a warning would be an error here
    train(geta.model, optimizer, range(16))
    assert optimizer.stage == "cool-down"


def test_a_warning_that_is_an_error_leaves_a_whole_step() -> None:
    geta, optimizer = started(gt.Budget(14 / 16))
    calm, twin = started(gt.Budget(14 / 16))
    calm.model.load_state_dict(geta.model.state_dict())
    with pytest.raises(CollapseWarning):
        train(geta.model, optimizer, range(16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(geta.model, optimizer, range(optimizer.steps_done, 16))
        train(calm.model, twin, range(16))
    mine, theirs = geta.model.state_dict(), calm.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
