"""Claims about random numbers: what the package runs for its own purposes uses up none of the user's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.graph import draws, own_draws


class Noisy(nn.Module):
    """Draws in evaluation, too."""

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.first(x + 0.1 * torch.randn_like(x)))))


class Accelerator:
    """What torch knows of a device, as far as random numbers go."""

    def __init__(self):
        self.states = [torch.tensor([1]), torch.tensor([2])]

    def get_rng_state(self, index):
        return self.states[index].clone()

    def set_rng_state(self, state, index):
        self.states[index] = state

    def manual_seed_all(self, seed):
        self.states = [torch.tensor([100 + seed])] * 2


def test_the_cpu_draws_afterwards_what_it_would_have_drawn():
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    with own_draws(seed=0):
        inside = torch.randn(4)
    assert torch.equal(torch.randn(4), expected)
    torch.manual_seed(0)
    assert torch.equal(inside, torch.randn(4))


def test_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), own_draws(seed=1):
        raise ZeroDivisionError
    assert torch.equal(before, torch.get_rng_state())


def test_every_generator_of_an_accelerator_in_use_is_seeded_and_put_back(monkeypatch):
    accelerator = Accelerator()
    monkeypatch.setattr(draws, "_in_use", lambda: (accelerator, [(0,), (1,)]))
    with own_draws(seed=5):
        assert [int(state) for state in accelerator.states] == [105, 105]
        accelerator.states = [torch.tensor([9])] * 2
    assert [int(state) for state in accelerator.states] == [1, 2]


def test_an_accelerator_that_nothing_has_used_is_not_told_where_to_begin(monkeypatch):
    # torch.manual_seed would: its seed waits in a queue until the device is used for the first time
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("reaches every device"))
    with own_draws(seed=5):
        torch.randn(1)


def test_an_analysis_a_cut_and_a_file_use_up_no_random_number(tmp_path):
    torch.manual_seed(11)
    dropping, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2)), torch.randn(3, 4)
    noisy, before = Noisy(), torch.get_rng_state()
    geta = gt.GETA(noisy, x)
    geta.mask(range(2))
    geta.construct_subnet()
    geta.sensitivity([x], lambda model, x: model(x).square().mean(), bits=(4,), kept=(0.5,))
    gt.save(gt.GETA(dropping, x).construct_subnet(), tmp_path / "net.safetensors")  # which asks what differs in training
    assert torch.equal(before, torch.get_rng_state())
