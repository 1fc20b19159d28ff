"""Bad input: each a clear error of our own form, and nothing is lost. What is refused leaves the model as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import (
    ArtifactError,
    BitWidthError,
    BudgetError,
    CalibrationError,
    ConfigError,
    InputError,
    NonFiniteError,
    PruningSpaceError,
    ScheduleError,
    TraceError,
)
from tests.small_nets import IMAGES, ROWS, assert_same, assert_unchanged, cnn, coloured_images, evaluate, snapshot, train


class Branching(nn.Module):
    """Decides by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        if hidden.sum() > 0:
            hidden = torch.relu(hidden)
        return self.second(hidden)


def uncalibrated(model: nn.Module) -> gt.GETA:
    return gt.GETA(model, IMAGES, quantize=gt.QuantConfig(activations=True))


def trained(model: nn.Module, protect: Any = (), **options: Any) -> gt.QASSO:
    return gt.GETA(model, IMAGES, protect=protect).qasso(torch.optim.SGD, lr=0.1, **options)


SHORT = gt.Schedule(1, 3, 1, 4, 2)
QASSO: dict[str, Any] = {"budget": gt.Budget(), "schedule": SHORT}
CALLS: dict[str, tuple[type[gt.GetaError], str, Callable[[nn.Module], Any]]] = {
    "no module": (
        ConfigError,
        r"not a model.*expected: a torch\.nn\.Module.*got: +function",
        lambda m: gt.GETA(m.forward.__func__, IMAGES),
    ),
    "wrong shape": (
        InputError,
        r"rejects the example inputs.*at: +Sequential.*shapes \[\(2, 4, 6, 6\)\]",
        lambda m: gt.GETA(m, torch.ones(2, 4, 6, 6)),
    ),
    "too many inputs": (InputError, r"rejects the example inputs.*TypeError", lambda m: gt.GETA(m, (IMAGES, IMAGES))),
    "no tensor": (InputError, r"rejects the example inputs", lambda m: gt.GETA(m, None)),
    "a mapping": (
        InputError,
        r"example_inputs is a mapping.*keys image.*try: .*example_kwargs=batch",
        lambda m: gt.GETA(m, {"image": IMAGES}),
    ),
    "keywords that are none": (InputError, r"example_kwargs.*got: +list", lambda m: gt.GETA(m, IMAGES, example_kwargs=[1])),
    "an empty batch": (InputError, r"example input is empty.*shape \(0, 3, 6, 6\)", lambda m: gt.GETA(m, IMAGES[:0])),
    "quantize=True": (ConfigError, r"quantize.*QuantConfig, or None.*got: +True", lambda m: gt.GETA(m, IMAGES, quantize=True)),
    "approximate norms": (ConfigError, r"approximate_norms.*True or False.*got: +'y'", lambda m: gt.GETA(m, IMAGES, approximate_norms="y")),
    "protect a misspelt layer": (
        ConfigError,
        r"matches nothing.*at: +3\.weigth.*did you mean '3\.weight'\?",
        lambda m: gt.GETA(m, IMAGES, protect=["3.weigth"]),
    ),
    "protect a number": (ConfigError, r"protect.*got: +3", lambda m: gt.GETA(m, IMAGES, protect=[3])),
    "skip what is not there": (ConfigError, "skip", lambda m: gt.GETA(m, IMAGES, quantize=gt.QuantConfig(skip=("nowhere.*",)))),
    "one bit": (BitWidthError, r"2 <= lower <= upper", lambda m: gt.Budget(bit_range=(1, 8))),
    "bits reversed": (BitWidthError, r"2 <= lower <= upper.*got: +\(8, 4\)", lambda m: gt.Budget(bit_range=(8, 4))),
    "initial bits": (BitWidthError, "initial_bits", lambda m: gt.QuantConfig(initial_bits=1)),
    "sparsity of two": (BudgetError, "group_sparsity", lambda m: gt.Budget(group_sparsity=2)),
    "two targets": (BudgetError, "only one of the targets", lambda m: gt.Budget(group_sparsity=0.5, size_bytes=100)),
    "K out of reach": (
        BudgetError,
        r"K <= 14 of 16 groups.*K = 16",
        lambda m: trained(m, budget=gt.Budget(group_sparsity=1.0), schedule=SHORT),
    ),
    "protected by exceptions": (
        BudgetError,
        r"K <= 0",
        lambda m: trained(m, schedule=SHORT, budget=gt.Budget(exceptions={"*": gt.LayerBudget(protect=True)})),
    ),
    "everything protected": (
        PruningSpaceError,
        r"nothing in this network may be removed.*protected axes; the first: .*request.*geta\.protected",
        lambda m: trained(m, protect=["*"], **QASSO),
    ),
    "a preview of nothing": (
        PruningSpaceError,
        r"nothing in this network",
        lambda m: gt.GETA(m, IMAGES, protect=["*"]).preview(gt.Budget()),
    ),
    "a schedule longer than the run": (
        ScheduleError,
        r"longer than the run.*at most 5 steps.*got: +8 steps.*for_steps\(5\)",
        lambda m: trained(m, total_steps=5, **QASSO),
    ),
    "no schedule": (
        ConfigError,
        r"schedule.*gt\.Schedule",
        lambda m: gt.GETA(m, IMAGES).qasso(torch.optim.SGD, budget=gt.Budget(), schedule=100),
    ),
    "no budget": (ConfigError, r"a gt\.Budget", lambda m: gt.GETA(m, IMAGES).qasso(torch.optim.SGD, budget=0.5, schedule=SHORT)),
    "no optimizer": (ConfigError, r"not an optimizer.*got: +'adam'", lambda m: gt.GETA(m, IMAGES).qasso("adam", **QASSO)),
    "options for a built one": (
        ConfigError,
        r"built optimizer takes no further arguments.*got: +momentum",
        lambda m: gt.GETA(m, IMAGES).qasso(torch.optim.SGD(m.parameters(), lr=1), momentum=0.9, **QASSO),
    ),
    "an option it does not know": (ConfigError, r"SGD rejects its arguments.*betas", lambda m: trained(m, betas=(0, 1), **QASSO)),
    "a rule it does not know": (ConfigError, r"saliency|rules", lambda m: trained(m, saliency="nosuch", **QASSO)),
    "mask beyond the end": (ConfigError, r"no such group.*0 <= index < 16.*got: +16", lambda m: gt.GETA(m, IMAGES).mask([16])),
    "mask one": (ConfigError, r"one group is not a collection", lambda m: gt.GETA(m, IMAGES).mask(3)),
    "mask a name": (ConfigError, r"not a group.*'conv'", lambda m: gt.GETA(m, IMAGES).mask(["conv"])),
    "round to nothing": (ConfigError, r"round_to.*>= 1.*got: +0", lambda m: gt.GETA(m, IMAGES).construct_subnet(round_to=0)),
    "a report of something else": (InputError, r"not a subnet of this GETA.*got: +Sequential", lambda m: gt.GETA(m, IMAGES).report(cnn())),
    "a length that is no number": (
        ConfigError,
        r"total_steps.*a whole number >= 0.*got: +'100'",
        lambda m: trained(m, total_steps="100", **QASSO),
    ),
    "protect by number": (ConfigError, r"protect\..*dotted paths.*got: +3", lambda m: gt.GETA(m, IMAGES, protect=3)),
    "protect nothing": (ConfigError, r"protect\..*dotted paths.*got: +None", lambda m: gt.GETA(m, IMAGES, protect=None)),
    "mask nothing": (ConfigError, r"mask: not groups.*got: +None", lambda m: gt.GETA(m, IMAGES).mask(None)),
    "a preview beyond the end": (
        ConfigError,
        r"preview: no such group.*0 <= index < 16.*got: +16",
        lambda m: gt.GETA(m, IMAGES).preview(gt.Budget(), groups=[16]),
    ),
    "a preview without a name": (
        ConfigError,
        r"preview: not a group.*'conv'",
        lambda m: gt.GETA(m, IMAGES).preview(gt.Budget(), groups=["conv"]),
    ),
    "a preview without one group": (
        ConfigError,
        r"preview: one group is not a collection",
        lambda m: gt.GETA(m, IMAGES).preview(gt.Budget(), groups=3),
    ),
    "metrics without names": (
        ConfigError,
        r"report: metrics.*name -> number.*got: +0\.9",
        lambda m: (lambda geta: geta.report(geta.construct_subnet(), metrics=0.9))(gt.GETA(m, IMAGES)),
    ),
    "a preset of no name": (ConfigError, r"paper: no such setting.*got: +\['vgg7'\]", lambda _: gt.Schedule.paper(["vgg7"], 9)),
    "calibrated by nothing": (InputError, r"no batches", lambda m: uncalibrated(m).calibrate([])),
    "calibrated by one batch": (InputError, r"batches is one batch", lambda m: uncalibrated(m).calibrate(IMAGES)),
    "not calibrated": (CalibrationError, r"geta\.calibrate", lambda m: uncalibrated(m).construct_subnet()),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_makes_no_sense_is_a_clear_error(name: str) -> None:
    error, message, call = CALLS[name]
    model = cnn()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(error, match=f"(?s){message}"):
        call(model)
    now = model.state_dict()
    for key, tensor in before.items():
        path, _, leaf = key.rpartition(".")
        assert torch.equal(now.get(key, now.get(f"{path}.parametrizations.{leaf}.original")), tensor)


REFUSED = ["wrong shape", "too many inputs", "a mapping", "an empty batch", "protect a misspelt layer", "skip what is not there"]


@pytest.mark.parametrize("name", REFUSED)
def test_after_an_error_in_geta_the_model_is_as_it_was(name: str) -> None:
    model = cnn()
    before, outputs = snapshot(model), evaluate(model, IMAGES)
    with pytest.raises(gt.GetaError):
        CALLS[name][2](model)
    assert_unchanged(model, before)
    assert_same(evaluate(model, IMAGES), outputs)


def test_a_model_that_cannot_be_traced_is_named_with_its_line_and_left_alone() -> None:
    model = Branching()
    before, outputs = snapshot(model), evaluate(model, ROWS)
    with pytest.raises(TraceError, match=r"(?s)cannot see through.*at: +test_bad_input\.py:\d+ in forward.*try: .*torch\.where"):
        gt.GETA(model, ROWS, quantize=gt.QuantConfig(activations=True))
    assert_unchanged(model, before)
    assert_same(evaluate(model, ROWS), outputs)


def test_an_error_while_a_quantized_model_is_analysed_again_leaves_its_quantizers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cnn()
    gt.GETA(model, IMAGES)
    before = snapshot(model)
    monkeypatch.setattr("geta_nb.qadg.analysis.find_groups", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gt.GETA(model, IMAGES, quantize=gt.QuantConfig(activations=True))
    assert_unchanged(model, before)


def test_a_weight_that_is_not_finite_is_refused_before_anything_is_attached() -> None:
    model = cnn()
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = float("inf")
    before = snapshot(model)
    with pytest.raises(NonFiniteError, match=r"(?s)a weight is not finite.*at: +3"):
        gt.GETA(model, IMAGES)
    assert_unchanged(model, before)


def test_a_model_without_parameters_has_nothing_to_prune_or_train() -> None:
    geta = gt.GETA(nn.Sequential(nn.ReLU(), nn.Flatten()), IMAGES)
    assert len(geta.groups) == 0 and geta.bit_widths() == {} and geta.group_sparsity() == 0.0
    assert_same(evaluate(geta.construct_subnet(), IMAGES), evaluate(geta.model, IMAGES))
    with pytest.raises(PruningSpaceError, match="nothing in this network"):
        geta.qasso(torch.optim.SGD, lr=0.1, **QASSO)
    with pytest.raises(ConfigError, match="no parameters to train"):
        geta.qasso(torch.optim.SGD, lr=0.1, budget=gt.Budget(group_sparsity=0.0), schedule=SHORT)


def test_a_model_without_values_cannot_be_cut() -> None:
    with torch.device("meta"):
        geta = gt.GETA(cnn(), torch.empty(2, 3, 6, 6))
    assert len(geta.groups) == 16
    for call in (geta.construct_subnet, geta.group_sparsity):
        with pytest.raises(InputError, match=r"(?s)no values.*meta tensor"):
            call()


@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_a_step_that_is_not_finite_is_refused_and_nothing_is_touched(where: str) -> None:
    geta = gt.GETA(cnn(), IMAGES)
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-2, **QASSO)
    train(geta.model, optimizer, range(5))  # in the middle of pruning
    geta.model(IMAGES).sum().backward()
    before, progress = snapshot(geta.model), optimizer.progress()
    if where == "gradient":
        geta.model[0].bias.grad[1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"(?s)QASSO\.step: .*no weight was changed.*at: .*step 5"):
        optimizer.step((lambda: torch.tensor(float("nan"))) if where == "loss" else None)
    assert_unchanged(geta.model, before)
    assert optimizer.progress() == progress
    train(geta.model, optimizer, range(5, 10))
    assert geta.group_sparsity() == 0.5


@pytest.mark.filterwarnings("ignore::geta_nb.errors.CollapseWarning")  # the loss is least where all outputs are 0
def test_a_loss_that_stops_being_finite_inside_a_step_of_lbfgs_is_refused_and_nothing_is_touched() -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=None)
    optimizer = geta.qasso(torch.optim.LBFGS, lr=0.1, max_iter=4, **QASSO)
    geta.model.eval()
    calls, bad = 0, 0

    def closure() -> torch.Tensor:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = geta.model(IMAGES).square().sum()
        loss.backward()
        return loss * float("nan") if calls == bad else loss

    for _ in range(3):  # the next step begins to prune
        optimizer.step(closure)
    assert geta.model[0].weight.grad is not None
    before, state = [p.detach().clone() for p in geta.model.parameters()], str(optimizer.state_dict())
    bad = calls + 3
    with pytest.raises(NonFiniteError, match="no weight was changed"):
        optimizer.step(closure)
    assert calls == bad
    assert all(torch.equal(p, old) for p, old in zip(geta.model.parameters(), before, strict=True))
    assert str(optimizer.state_dict()) == state
    for _ in range(6):
        optimizer.step(closure)
    assert geta.group_sparsity() == 0.5


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text", "missing"])
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    gt.save(gt.GETA(cnn(), IMAGES).construct_subnet(), path)
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:]
    changed = {"truncated": whole[:-20], "empty": b"", "flipped": flipped, "text": b"not a network", "missing": b""}[damage]
    path.write_bytes(changed)
    if damage == "missing":
        path.unlink()
    twin = cnn()
    before = snapshot(twin)
    with pytest.raises(ArtifactError, match=r"(?s)load: .*at: .*net\.safetensors"):
        gt.load(path, into=twin)
    assert_unchanged(twin, before)


def test_only_a_subnet_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)no subnet.*try: .*construct_subnet"):
        gt.save(cnn(), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_every_error_has_our_form() -> None:
    with pytest.raises(gt.GetaError) as caught:
        gt.GETA(cnn(), IMAGES, protect=["0.wieght"])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("GETA: ") and lines[0].endswith(".")
    assert [line.split()[0] for line in lines[1:]] == ["at:", "expected:", "got:", "try:"]
    assert {line[:2] for line in lines[1:]} == {"  "} and len(coloured_images(3)[1]) == 3


@pytest.mark.parametrize("name", ["class", 'a"b', "a\\b", "a\nb"])
def test_a_name_that_no_graph_can_hold_is_refused_and_others_pass(name):
    def net(called: str) -> nn.Module:
        model = nn.Sequential()
        model.add_module(called, nn.Linear(4, 8))
        model.add_module("last", nn.Linear(8, 2))
        return model

    model = net(name)
    with pytest.raises(gt.GetaError, match=r"cannot write this name[\s\S]*at: +"):
        gt.GETA(model, torch.randn(2, 4))
    assert not hasattr(model[0], "parametrizations")
    assert len(gt.GETA(net("klasse 'ä' <b>"), torch.randn(2, 4)).groups) == 8


def _compiled(how: str, model: nn.Module, inputs: Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what it compiled with
        return torch.jit.trace(model, inputs) if how == "trace" else torch.jit.script(model)


@pytest.mark.parametrize("quantize", [gt.QuantConfig(initial_bits=8), None])
@pytest.mark.parametrize("how", ["trace", "script"])
def test_what_torch_jit_compiled_is_refused_by_name_and_its_hint_works(how: str, quantize: gt.QuantConfig | None) -> None:
    inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    for model, at, kind in (
        (_compiled(how, inner, torch.randn(2, 4)), "Sequential", "Sequential"),
        (nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"deep": _compiled(how, inner, torch.randn(2, 4))})), r"1\.deep", "Sequential"),
    ):
        said = rf"(?s)what torch\.jit compiled.*at: +{at}\n.*Module of {kind}.*try: +gt\.GETA\(module.*torch\.jit\.trace\(geta\.construct"
        with pytest.raises(TraceError, match=said):
            gt.GETA(model, torch.randn(2, 4), quantize=quantize)
    geta = gt.GETA(nn.Sequential(*inner, nn.Linear(8, 2)), torch.randn(2, 4), quantize=quantize)
    geta.mask([0])
    subnet, inputs = geta.construct_subnet(), torch.randn(2, 4)
    assert torch.equal(_compiled(how, subnet, inputs)(inputs), subnet(inputs))


def test_a_function_that_torch_jit_compiled_is_no_model_either() -> None:
    def double(x: Tensor) -> Tensor:
        return x * 2

    with pytest.raises(TraceError, match=r"(?s)torch\.jit compiled.*got: +ScriptFunction"):
        gt.GETA(_compiled("script", double, ROWS), ROWS)


def test_widgets_and_doors_given_something_else_say_what_they_want(tmp_path):
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4)
    geta = gt.GETA(model, x)
    subnet = geta.construct_subnet()
    gt.save(subnet, tmp_path / "small")
    for name in ("Explorer", "BudgetPanel", "studio", "to_graphviz", "to_pyvis"):
        with pytest.raises(gt.GetaError, match=r"not a network that was analysed[\s\S]*expected: a gt\.GETA[\s\S]*got: +int"):
            getattr(gt, name)(3)
    with pytest.raises(gt.GetaError, match=r"into is no module[\s\S]*got: +int"):
        gt.load(tmp_path / "small", into=3)
    with pytest.raises(gt.GetaError, match=r"benchmark_latency: against[\s\S]*got: +int"):
        gt.benchmark_latency(subnet, against=3, example_inputs=x)
    other = gt.GETA(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), x, quantize=gt.QuantConfig(activations=True))
    with pytest.raises(gt.GetaError, match=r"these are no batches[\s\S]*got: +NoneType"):
        other.calibrate(None)
