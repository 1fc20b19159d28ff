"""Claims about devices: a run is the same wherever it is, goes on where the model goes, and does not wait; on a pretended one too.

The pretended accelerator is used in a process of its own, see ``tests.pretend``; with CUDA at hand its runs are on CUDA as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch

import geta_nb as gt
from geta_nb.qasso.moving import Places, state_follows
from geta_nb.quantizers import Histogram
from tests.devices import DEVICES
from tests.qasso.device_runs import STEPS, Run, batch, digest
from tests.qasso.nets import COLLAPSES

pytestmark = pytest.mark.filterwarnings(COLLAPSES)
KINDS = ["adam", "sgd", "paper", "channels"]


@lru_cache
def on_the_cpu(kind):
    run = Run("cpu", kind).train()
    return run.tensors(), run.outputs()


@pytest.fixture
def default_device():
    yield torch.set_default_device
    torch.set_default_device(None)


@pytest.mark.parametrize("kind", ["adam", pytest.param("paper", marks=pytest.mark.slow), pytest.param("channels", marks=pytest.mark.slow)])
def test_whatever_device_is_the_default_a_model_on_the_cpu_is_trained_and_cut_to_the_same_bits(kind, default_device, tmp_path):
    expected, outputs = on_the_cpu(kind)
    default_device("meta")  # what lands there has no values: whoever reads one fails
    run = Run("cpu", kind).train(9)
    run.geta.save_checkpoint(tmp_path / "run")
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    found, cut = run.train().tensors(), run.outputs()
    run.optimizer.hold()
    assert run.optimizer.saliency()["alive"].sum() == run.optimizer.progress()["n_groups"] // 2
    gt.save(run.geta.construct_subnet(), tmp_path / "net.safetensors")
    default_device(None)
    assert all(torch.equal(found[name], value) for name, value in expected.items()) and torch.equal(cut, outputs)
    assert torch.equal(gt.load(tmp_path / "net.safetensors")(batch(98)), outputs)


@pytest.mark.slow
@pytest.mark.parametrize("estimate", ["measured", "gradient"])
def test_whatever_device_is_the_default_sensitivity_is_the_same(estimate, default_device):
    def found():
        return Run().geta.sensitivity([batch(1)], lambda model, x: model(x).square().mean(), bits=(4,), kept=(0.5,), estimate=estimate)

    expected = found()
    default_device("meta")
    assert found().to_dict() == expected.to_dict()


def as_channels_last(model):
    model.to(memory_format=torch.channels_last)


def as_other_memory(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@pytest.mark.parametrize("kind", ["adam", "sgd", "paper"])
@pytest.mark.parametrize("change", [as_channels_last, as_other_memory])
def test_a_model_whose_weights_get_other_memory_while_groups_fade_is_followed(change, kind):
    run = Run("cpu", kind).train(8)
    assert run.optimizer.progress()["fading_groups"] > 0
    change(run.model)
    found = run.train().tensors()
    assert run.geta.group_sparsity() == 0.5  # written to the old memory, factors would hold nothing at zero
    assert all(float(bits).is_integer() for bits in run.geta.bit_widths().values())
    if change is as_other_memory:  # the other one adds up in another order
        assert digest(found) == digest(on_the_cpu(kind)[0])


def test_a_model_that_becomes_float64_in_the_middle_of_a_run_goes_on():
    run = Run("cpu", "adam").train(8)
    run.model.double()
    run.train()
    assert run.geta.group_sparsity() == 0.5 and all(float(bits).is_integer() for bits in run.geta.bit_widths().values())
    state = run.optimizer.state_dict()["state"]
    assert {value.dtype for one in state.values() for key, value in one.items() if key != "step"} == {torch.float64}


def test_places_say_once_that_something_moved():
    tensors = [torch.zeros(3), torch.nn.Parameter(torch.zeros(2))]
    places = Places(tensors)
    assert not places.moved()
    tensors[1].data = torch.ones(2)
    assert places.moved() and not places.moved()


def test_state_follows_to_the_type_of_its_parameter_and_counters_stay():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.NAdam([parameter], lr=0.1)
    parameter.grad = torch.ones(2)
    optimizer.step()
    kept = dict(optimizer.state[parameter])
    state_follows(optimizer)
    assert all(optimizer.state[parameter][key] is value for key, value in kept.items())
    parameter.data = parameter.data.double()
    state_follows(optimizer)
    types = {key: value.dtype for key, value in optimizer.state[parameter].items()}
    assert types == {"step": torch.float32, "mu_product": torch.float32, "exp_avg": torch.float64, "exp_avg_sq": torch.float64}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_a_device_gives_the_same_bits_twice_and_keeps_its_budget(device, kind):
    runs = [Run(device, kind).train() for _ in range(2 if device != "cpu" else 1)]
    found = [digest(run.tensors()) for run in runs]
    assert len({*found, *([digest(on_the_cpu(kind)[0])] if device == "cpu" else [])}) == 1
    assert runs[0].geta.group_sparsity() == 0.5
    assert {value.device.type for value in runs[0].model.state_dict().values()} == {device}


@pytest.mark.parametrize("device", DEVICES)
def test_a_histogram_is_where_its_inputs_are(device):
    histogram = Histogram()
    histogram(torch.ones(3))
    histogram(torch.ones(3, device=device))
    assert histogram.counts.device.type == device and float(histogram.counts.sum()) == 6


@pytest.fixture(scope="module")
def pretended(tmp_path_factory):
    """Return what a process with a pretended accelerator found out."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.qasso.device_runs", str(tmp_path_factory.mktemp("pretended"))]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_run_on_an_accelerator_is_that_on_the_cpu(pretended):
    tensors, outputs = on_the_cpu("adam")
    assert pretended["weights"] == digest(tensors) and pretended["outputs"] == digest({"": outputs})


@pytest.mark.slow
@pytest.mark.parametrize("how", ["adam 0", "adam 9", "sgd 5", "paper 9", "channels 9"])
def test_a_model_that_moves_to_an_accelerator_in_the_middle_of_a_run_goes_on_there(pretended, how):
    tensors, outputs = on_the_cpu(how.split()[0])
    expected = {"weights": digest(tensors), "outputs": digest({"": outputs}), "copy": digest({"": outputs})}
    assert pretended["moved"][how] == expected


@pytest.mark.slow
def test_a_step_waits_for_the_device_once_and_more_only_where_bits_or_groups_are_decided(pretended):
    waits = pretended["waits"]
    # bits fall after steps 3 and 5, groups are chosen in steps 6 and 10 and gone after 9 and 13, and after 13 bits are fixed
    decided = {3, 5, 6, 9, 10, 13}
    assert len(waits) == STEPS and all(count == 1 for step, count in enumerate(waits) if step not in decided), waits
    assert max(waits) < 40, waits


@pytest.mark.slow
def test_what_runs_a_model_for_its_own_purposes_draws_from_no_generator_of_an_accelerator(pretended):
    assert pretended["draws"] and all(pretended["draws"].values()), pretended["draws"]
