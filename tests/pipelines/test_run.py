"""A pipeline's run: batches and rates are functions of the step, and a run that was killed goes on bit for bit."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ConfigError, InputError
from geta_nb.pipelines import recipes
from geta_nb.pipelines.batches import Batches, load_from
from geta_nb.pipelines.decay import DECAYS, find_decay
from geta_nb.pipelines.images import ImageArrays, accuracy, augment, image_task
from geta_nb.pipelines.run import Run, describe_budget, measure
from geta_nb.qasso.schedule import Schedule


def rows_and_noise(rows, generator):
    return rows, torch.rand(1, generator=generator)


def arrays(train=40, test=12):
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (train + test, 3, 8, 8), generator=draw).to(torch.uint8)
    labels = torch.arange(train + test) % 3
    images[:, 0] = labels[:, None, None].to(torch.uint8) * 100  # learnable
    return ImageArrays(images[:train], labels[:train], images[train:], labels[train:], ["a", "b", "c"], shift=1)


def small_net():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(8, 8, 3), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def test_an_epoch_draws_every_example_once_in_an_order_of_its_own():
    batches = Batches(10, 4, rows_and_noise, seed=1)
    assert batches.steps_per_epoch == 3
    epochs = [torch.cat([batches[3 * epoch + k][0] for k in range(3)]).tolist() for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_seed_and_step_alone():
    first, second = Batches(10, 4, rows_and_noise, seed=1), Batches(10, 4, rows_and_noise, seed=1)
    for step in (7, 2, 5):
        assert all(torch.equal(a, b) for a, b in zip(first[step], second[step], strict=True))
    assert not torch.equal(first[0][0], Batches(10, 4, rows_and_noise, seed=2)[0][0])
    assert not torch.equal(first[0][1], first[1][1])


def test_dropping_the_last_keeps_whole_batches_only():
    assert Batches(10, 4, rows_and_noise, drop_last=True).steps_per_epoch == 2
    assert Batches(3, 4, rows_and_noise, drop_last=True).steps_per_epoch == 1  # one batch of all there is


@pytest.mark.slow
def test_worker_processes_give_the_batches_of_none():
    batches = Batches(10, 4, rows_and_noise)
    alone, helped = (list(load_from(batches, 2, 6, workers=workers)) for workers in (0, 2))
    assert len(alone) == 4
    assert all(torch.equal(a, b) for one, two in zip(alone, helped, strict=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("size", "batch_size"), [(0, 4), (4, 0)])
def test_batches_of_nothing_are_refused(size, batch_size):
    with pytest.raises(InputError, match="has to be positive"):
        Batches(size, batch_size, rows_and_noise)


@pytest.mark.parametrize("name", DECAYS)
def test_a_rate_begins_whole_and_never_rises(name):
    shares = [find_decay(name)(step, 90) for step in range(91)]
    assert shares[0] == 1
    assert all(0 <= after <= before for before, after in pairwise(shares))
    assert shares[-1] <= 0.01 + 1e-12  # thirds end at 0.1 ** 2, which is not exact in binary


def test_an_unknown_decay_is_named():
    with pytest.raises(ConfigError, match="'cosine' or 'linear' or 'thirds'"):
        find_decay("cosin")


@pytest.mark.parametrize("name", recipes.EPOCHS)
def test_a_run_of_the_published_length_has_the_published_stages(name):
    assert recipes.paper_schedule(name, recipes.EPOCHS[name] * 391) == Schedule.paper(name, 391)


@pytest.mark.parametrize("name", recipes.EPOCHS)
def test_a_short_run_has_every_period_of_the_published_stages(name):
    schedule = recipes.paper_schedule(name, 40)
    published = Schedule.paper(name, 1000)
    assert (schedule.projection_periods, schedule.joint_periods) == (published.projection_periods, published.joint_periods)
    assert schedule.cool_down_start < 40


def test_a_run_shorter_than_the_periods_is_refused():
    with pytest.raises(ConfigError, match="too short"):
        recipes.paper_schedule("vgg7", 15)
    with pytest.raises(ConfigError, match="'paper' or 'ours'"):
        recipes.find_recipe("theirs", "vgg7", 100)


def test_augmented_images_are_shifted_and_mirrored_pixels_of_the_original():
    images = torch.arange(1, 5, dtype=torch.uint8).view(1, 1, 2, 2).expand(64, 3, 2, 2)
    shifted = augment(images, torch.Generator().manual_seed(0), shift=1, mirror=True)
    assert shifted.shape == images.shape
    assert set(shifted.unique().tolist()) == {0, 1, 2, 3, 4}
    still = [image[0].flatten().tolist() for image in shifted if (image[0] > 0).all()]
    assert still and all(pixels in ([1, 2, 3, 4], [2, 1, 4, 3]) for pixels in still)
    assert torch.equal(augment(images, torch.Generator().manual_seed(0), shift=0, mirror=False), images)


def test_accuracy_is_the_share_of_images_that_are_right():
    data = arrays()
    logits = torch.eye(3)[data.test_labels]
    logits[0] = logits[0].roll(1)

    class Table(nn.Module):
        def forward(self, images):
            return logits

    assert accuracy(Table(), data=data) == {"accuracy": 11 / 12}


class Killed(Exception):
    pass


def compressed(folder, *, killed_after=None, seed=0):
    """A whole run: dense, then compressed; optionally killed after so many batches were drawn in all."""
    data = arrays()
    run = Run(folder, smoke=True, seed=seed, epochs=4)
    run.save_seconds = 0.0
    drawn = [0]

    def draw(rows, generator):
        drawn[0] += 1
        if killed_after is not None and drawn[0] > killed_after:
            raise Killed
        return data.draw(rows, generator)

    task = image_task(data, batch_size=8, seed=seed)
    task.batches.draw = draw
    dense = small_net()
    run.train("dense", dense, torch.optim.Adam(dense.parameters(), lr=1e-2), task, epochs=2)
    geta = run.geta(
        "compress", dense, next(data.test_batches(2))[0], quantize=gt.QuantConfig(activations=True),
        calibrate=[batch[0] for batch in data.test_batches(4)],
    )  # fmt: skip
    recipe = recipes.find_recipe("ours", "vgg7", 20)
    optimizer = geta.qasso(torch.optim.SGD, budget=gt.Budget(0.5), schedule=recipe.schedule, lr=0.05, momentum=0.9, **recipe.rules)
    history = run.train("compress", dense, optimizer, task, epochs=4, decay="thirds", geta=geta)
    return run, geta, history


@pytest.mark.parametrize("killed_after", [3, 13, 25])
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, killed_after):
    _, whole, history = compressed(tmp_path / "whole")
    with pytest.raises(Killed):
        compressed(tmp_path / "killed", killed_after=killed_after)
    run, resumed, resumed_history = compressed(tmp_path / "killed")
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    assert resumed_history == history
    assert resumed.group_sparsity() == whole.group_sparsity() == 0.5
    run.finish()
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_a_run_with_other_parameters_does_not_go_on_from_this_one(tmp_path):
    with pytest.raises(Killed):
        compressed(tmp_path, killed_after=13)
    other, _, history = compressed(tmp_path, seed=1)
    assert history[0]["step"] == 1
    other.finish()
    assert (tmp_path / "checkpoints").is_dir(), "the checkpoints of the killed run are still there"


def test_a_run_says_what_it_is_and_refuses_a_folder_that_is_not_there(tmp_path):
    assert repr(Run(tmp_path, smoke=True)).startswith("Run(seed 0, stand-in data, on ")
    assert "the data in data_dir" in repr(Run(tmp_path, data_dir=tmp_path))
    with pytest.raises(InputError, match="not a folder"):
        Run(tmp_path, data_dir=tmp_path / "nowhere")


def test_measuring_leaves_every_mode_as_it_was_and_takes_no_gradients():
    model = small_net().train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    seen = measure(model, lambda m: {"training": float(m.training), "gradients": float(m(torch.zeros(1, 3, 8, 8)).requires_grad)})
    assert seen == {"training": 0.0, "gradients": 0.0}
    assert [module.training for module in model.modules()] == before


def test_budgets_in_words():
    assert describe_budget(gt.Budget(0.35)) == "sparsity 35 %"
    assert describe_budget(gt.Budget(relative_bops=0.03)) == "relative BOPs 3 %"
    assert describe_budget(gt.Budget(size_bytes=20_000)) == "20 kB"


def test_accuracy_task_is_bound_to_its_data():
    task = image_task(arrays(), batch_size=8, seed=0)
    assert isinstance(task.evaluate, partial)
    assert 0 <= measure(small_net(), task.evaluate)["accuracy"] <= 1
