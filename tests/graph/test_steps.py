"""Two runs with the same steps compute the same: what differs in a run differs in its steps, with numbers or without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from geta_nb.errors import InputError
from geta_nb.graph.inputs import check_inputs, run_of_check
from geta_nb.graph.steps import OtherStepError, Recorder, Steps, without_numbers

X = torch.randn(2, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.body: Any = lambda net, x: net.b(torch.relu(net.a(x)) * 2.0 + torch.tensor([0.5, 1.0, 2.0, 4.0]))

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def steps_of(net: Net, x: Tensor = X) -> Steps | None:
    with torch.no_grad(), Recorder((*net.parameters(), *net.buffers()), [x]) as recorder:
        out = net(x)
    return recorder.steps(out)


def dry_run(net: Net, expected: Steps | None = None) -> tuple[Steps | None, Recorder]:
    with without_numbers((X,), {}) as ((x,), _), torch.no_grad():
        recorder = Recorder((*net.parameters(), *net.buffers()), [x])
        recorder.expected = expected.operators if expected is not None else None
        with recorder:
            out = net(x)
        return recorder.steps(out), recorder


OTHER: list[Any] = [
    lambda net, x: net.b(torch.relu(net.a(x)) * 3.0 + torch.tensor([0.5, 1.0, 2.0, 4.0])),
    lambda net, x: net.b(torch.relu(net.a(x)) * 2.0 + torch.tensor([0.5, 1.0, 2.0, 8.0])),
    lambda net, x: net.b(torch.relu(net.b(x)) * 2.0 + torch.tensor([0.5, 1.0, 2.0, 4.0])),
    lambda net, x: net.b(torch.selu(net.a(x)) * 2.0 + torch.tensor([0.5, 1.0, 2.0, 4.0])),
    lambda net, x: net.b((net.a(x).relu(), net.a(x))[0] * 2.0 + torch.tensor([0.5, 1.0, 2.0, 4.0])),
    lambda net, x: (net.b(torch.relu(net.a(x)) * 2.0 + torch.tensor([0.5, 1.0, 2.0, 4.0])), x)[1],
]


def test_the_same_run_has_the_same_steps_with_numbers_and_without():
    net = Net()
    first = steps_of(net)
    assert first is not None and first.results == (("step", len(first.operators) - 1, 0),)
    assert steps_of(net, torch.randn(2, 4)) == first == dry_run(net, first)[0]


@pytest.mark.parametrize("body", OTHER, ids=["a number", "a constant", "a weight", "an operator", "one more", "an output"])
def test_a_run_that_does_something_else_has_other_steps(body):
    net = Net()
    first = steps_of(net)
    net.body = body
    assert None not in (first, other := steps_of(net)) and other != first
    try:
        assert dry_run(net, first)[0] != first
    except OtherStepError:
        assert other.operators != first.operators


def test_a_constant_that_is_large_is_not_known():
    net, large = Net(), torch.randn(2, 64)
    net.body = lambda net, x: net.a(x) + large[:, :4]
    assert steps_of(net) is None


def test_a_run_without_numbers_writes_nothing_and_says_what_is_kept():
    net = Net()
    net.register_buffer("seen", torch.zeros(2, 4))
    net.body = lambda net, x: net.a(net.seen.add_(x).clone())
    dry_run(net)
    assert not net.seen.any()
    kept: list[Tensor] = []
    net.body = lambda net, x: (kept.append(net.a(x)), net.b(x))[1]
    assert not dry_run(net)[1].are_gone()
    kept.clear()
    net.body = lambda net, x: net.b(net.a(x))
    assert dry_run(net)[1].are_gone()


def test_the_check_of_inputs_notes_steps_of_large_models_alone():
    for width, known in ((16, False), (512, True)):
        net = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        x = torch.randn(1, width)
        check_inputs(net, (x,), {})
        ran = run_of_check(net, (x,), {})
        assert ran is not None and (ran.steps is not None) == known and torch.equal(ran.outputs[0], net(x))
        assert run_of_check(net, (x,), {}) is None
        assert not known or (ran.steps.work == 2 * width * width and not ran.steps.is_long)


def test_a_model_that_does_not_run_while_it_is_watched_runs_unwatched():
    class Shy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if _get_current_dispatch_mode() is not None:
                raise NotImplementedError
            return super().forward(x)

    net, x = Shy(512, 512), torch.randn(1, 512)
    check_inputs(net, (x,), {})
    ran = run_of_check(net, (x,), {})
    assert ran is not None and ran.steps is None and torch.equal(ran.outputs[0], net(x))
    with pytest.raises(InputError, match="rejects"):
        check_inputs(net, (x[:, :3],), {})
