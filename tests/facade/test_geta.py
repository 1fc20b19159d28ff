"""The façade: what API.md promises of it, on nets that train in a second."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import CalibrationError
from tests.small_nets import (
    IMAGES,
    ROWS,
    KeywordOnly,
    Residual,
    Talker,
    assert_same,
    assert_unchanged,
    cnn,
    coloured_images,
    evaluate,
    every_third,
    snapshot,
    train,
)

REPORT_KEYS = {
    "group_sparsity", "target_group_sparsity", "bit_widths", "activation_bit_widths", "parameters", "macs", "size_bytes", "relative_bops",
    "relative_bops_full", "max_abs_difference", "module_kind", "layers", "metrics", "versions",
}  # fmt: skip
SCHEDULE = gt.Schedule(3, 9, 3, 16, 4)
BUDGET = gt.Budget(group_sparsity=0.4, bit_range=(4, 8), activation_bit_range=(4, 8))


class Run(NamedTuple):
    """A finished run of 40 steps."""

    geta: gt.GETA
    optimizer: gt.QASSO
    stages: list[str]
    bits: list[dict[str, Any]]
    subnet: nn.Module
    accuracy: float


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True))
    geta.calibrate([coloured_images(24)[0]])
    optimizer = geta.qasso(torch.optim.AdamW, lr=1e-2, budget=BUDGET, schedule=SCHEDULE, total_steps=40)
    stages, bits = [], []
    for step in range(40):
        stages.append(optimizer.stage)
        bits.append({**geta.bit_widths(), **{f"{k} in": v for k, v in geta.activation_bit_widths().items()}})
        train(geta.model, optimizer, [step])
    images, labels = coloured_images(60)
    accuracy = float((evaluate(geta.model, images)[0].argmax(1) == labels).float().mean())
    return Run(geta, optimizer, stages, bits, geta.construct_subnet(), accuracy)


def test_a_run_passes_through_the_four_stages_in_order(run: Run) -> None:
    assert list(dict.fromkeys(run.stages)) == ["warm-up", "projection", "joint", "cool-down"]


def test_a_run_learns_what_can_be_separated(run: Run) -> None:
    assert run.accuracy > 0.9


def test_exactly_k_groups_are_zero_at_the_end(run: Run) -> None:
    k = int(np.floor(0.4 * len(run.geta.groups) + 0.5))
    assert run.geta.group_sparsity() == k / len(run.geta.groups)
    assert run.geta.report(run.subnet).to_dict()["group_sparsity"] == k / len(run.geta.groups)


def test_bits_are_whole_numbers_of_the_range_from_the_cool_down_on(run: Run) -> None:
    assert run.geta.activation_bit_widths().keys() == run.geta.bit_widths().keys() == {"0", "3", "8"}
    for step in range(SCHEDULE.cool_down_start, 40):
        assert all(type(bits) is int and 4 <= bits <= 8 for bits in run.bits[step].values()), step
    assert any(isinstance(bits, float) for bits in run.bits[2].values())


def test_the_subnet_computes_what_the_masked_model_computes(run: Run) -> None:
    images = coloured_images(16)[0]
    scale = float(evaluate(run.geta.model, images)[0].abs().max())
    # float32 sums of some 100 terms in another order: 100 * 6e-8, three layers, far below 1e-4; no code falls the other way on this seed
    assert_same(evaluate(run.subnet, images), evaluate(run.geta.model, images), atol=1e-4 * max(scale, 1))
    assert sum(p.numel() for p in run.subnet.parameters()) < sum(p.numel() for p in run.geta.model.parameters())


def test_a_preview_of_the_groups_that_were_cut_costs_what_the_report_measured(run: Run) -> None:
    report = run.geta.report(run.subnet)
    removed = [g.index for g, alive in zip(run.geta.groups, run.optimizer.group_mask, strict=True) if not alive]
    preview = run.geta.preview(BUDGET, groups=removed)
    count = sum(p.numel() for name, p in run.subnet.named_parameters() if "quantizer" not in name)
    assert preview.parameters == report.to_dict()["parameters"]["subnet"] == count
    assert preview.macs == report.to_dict()["macs"]["subnet"]
    exact = {layer: gt.LayerBudget(bit_range=(b, b), activation_bit_range=(a, a)) for (layer, b), a in
             zip(run.geta.bit_widths().items(), run.geta.activation_bit_widths().values(), strict=True)}  # fmt: skip
    preview = run.geta.preview(gt.Budget(group_sparsity=0.4, exceptions=exact), groups=removed)
    assert (preview.relative_bops, preview.size_bytes) == (report.costs.relative_bops, report.costs.size_bytes)


def test_the_report_has_the_keys_of_the_contract_and_is_json(run: Run) -> None:
    report = run.geta.report(run.subnet, metrics={"accuracy": run.accuracy})
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found.keys() >= REPORT_KEYS
    assert found["metrics"] == {"accuracy": run.accuracy} and found["module_kind"] == "native"
    assert found["parameters"].keys() >= {"dense", "subnet"} and found["size_bytes"].keys() >= {"dense", "subnet"}
    assert found["target_group_sparsity"] == found["group_sparsity"] and found["max_abs_difference"] < 1e-4
    assert all(type(bits) is int for bits in (*found["bit_widths"].values(), *found["activation_bit_widths"].values()))


def test_a_report_tells_of_the_cut_even_when_training_went_on(run: Run) -> None:
    geta = gt.GETA(cnn(), IMAGES)
    subnet = geta.construct_subnet()
    before = geta.report(subnet).to_dict()
    with torch.no_grad():
        for quantizer in geta.quantizers.weights.values():
            quantizer.set_range(1.0, 5)
    assert geta.report(subnet).to_dict() == before and set(before["bit_widths"].values()) == {16}
    assert geta.report(copy.deepcopy(subnet)).to_dict() == before


def test_the_file_holds_what_the_subnet_computes(run: Run, tmp_path: Path) -> None:
    gt.save(run.subnet, tmp_path / "net.safetensors")
    loaded = gt.load(tmp_path / "net.safetensors")
    images = coloured_images(5)[0]
    assert_same(evaluate(loaded, images), evaluate(run.subnet.geta_info.graph, images))
    # the file holds the graph; the native module adds the same terms, batch norm by another kernel
    assert_same(evaluate(loaded, images), evaluate(run.subnet, images), atol=1e-6 * 10)
    dense = sum(p.numel() for p in cnn().parameters()) * 4
    assert (tmp_path / "net.safetensors").stat().st_size < dense + 6000


def test_signatures_are_those_of_the_contract() -> None:
    def names(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(gt.GETA) == ["model", "example_inputs", "example_kwargs", "quantize", "protect", "approximate_norms", "dynamic"]
    assert {"optimizer", "budget", "schedule", "lr_quant", "inner"} <= set(names(gt.GETA.qasso))
    assert names(gt.GETA.construct_subnet) == ["self", "round_to"]
    assert names(gt.GETA.report)[-1] == "metrics" and names(gt.load) == ["path", "into", "model"]
    for name in ("model", "trace", "qadg", "groups", "families", "protected", "calibrate", "preview", "mask", "bit_widths"):
        assert hasattr(gt.GETA, name) or name == "model" or name == "groups"
    for name in ("activation_bit_widths", "group_sparsity", "save_checkpoint", "resume"):
        assert callable(getattr(gt.GETA, name))


def test_the_model_stays_the_object_with_the_objects_it_had() -> None:
    model = cnn()
    weights = {id(p) for p in model.parameters()}
    geta = gt.GETA(model, IMAGES)
    assert geta.model is model and weights <= {id(p) for p in model.parameters()}


def test_a_group_lists_its_slices_and_what_it_removes() -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=None)
    group = geta.groups[2]
    assert ("0.weight", 0, (2,)) in group.slices and ("3.weight", 1, (2,)) in group.consumers
    assert set(group.slices) == set(group.producers) | set(group.consumers)
    assert group.size == 3 * 9 + 1 + 2 + 8 * 9  # a filter, its bias, the norm's scale and shift, and what reads it
    assert [len(family.groups) for family in geta.families] == [8, 8] and geta.families[0].module_path == "0"


@pytest.mark.parametrize("form", ["groups", "indices", "numpy", "family"])
def test_mask_takes_groups_and_indices(form: str) -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=None)
    chosen: Any = {"groups": geta.groups[:2], "indices": [0, 1], "numpy": np.array([0, 1]), "family": geta.families[0].groups[:2]}[form]
    geta.mask(chosen)
    assert geta.group_sparsity() == 2 / 16
    assert not geta.model[0].weight[:2].any() and not geta.model[1].bias[:2].any() and geta.model[0].weight[2:].all()


@pytest.mark.parametrize("round_to", [1, 2, 4])
def test_round_to_keeps_multiples(round_to: int) -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=None)
    geta.mask([0, 1, 2, 8])
    subnet = geta.construct_subnet(round_to=round_to)
    assert (subnet[0].out_channels, subnet[3].out_channels) == {1: (5, 7), 2: (6, 8), 4: (8, 8)}[round_to]
    assert geta.report(subnet).to_dict()["group_sparsity"] == 4 / 16  # zero groups, kept or not


def test_round_to_counts_the_channels_of_a_head_as_the_optimizer_does() -> None:
    class Heads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).view(-1, 5, 3, 4, 4).permute(2, 0, 3, 1, 4)
            return self.out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 5, 16))

    geta = gt.GETA(Heads(), torch.randn(2, 5, 16), quantize=None)
    assert len(geta.groups) == 4  # heads, of four channels each
    geta.mask([0, 1, 2])
    assert geta.construct_subnet().get_parameter("out.weight").shape[1] == 4
    subnet = geta.construct_subnet(round_to=8)
    assert subnet.get_parameter("out.weight").shape[1] == 8  # two heads, not all four
    facts = geta.report(subnet).to_dict()
    bare = geta.report(geta.construct_subnet()).to_dict()
    assert "rounding" not in bare and facts["group_sparsity"] == bare["group_sparsity"] == 3 / 4
    assert (facts["rounding"]["round_to"], facts["rounding"]["groups"]) == (8, 1)
    for key in ("parameters", "size_bytes", "macs"):
        assert facts["rounding"][key] == facts[key]["subnet"] - bare[key]["subnet"] > 0
    assert facts["rounding"]["relative_bops"] == facts["relative_bops"] - bare["relative_bops"]
    html = geta.report(subnet)._repr_mimebundle_()["text/html"]
    assert "1 zero group, so that channels are multiples of 8" in html


def test_a_family_that_is_zero_as_a_whole_keeps_one_channel() -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=None)
    geta.mask(geta.families[0].groups)
    subnet = geta.construct_subnet()
    assert subnet[0].out_channels == 1 and geta.report(subnet).to_dict()["max_abs_difference"] < 1e-5


@pytest.mark.parametrize("form", ["tuple", "dict", "dataclass"])
def test_outputs_keep_their_form(form: str) -> None:
    geta = gt.GETA(Talker(form), ROWS)
    geta.mask(every_third(geta))
    subnet = geta.construct_subnet()
    assert type(subnet(ROWS)) is type(geta.model(ROWS))
    # 8 terms in another order, float32
    assert_same(evaluate(subnet, ROWS), evaluate(geta.model, ROWS), atol=1e-6)


def test_a_model_that_takes_keywords_alone_is_compressed() -> None:
    kwargs = {"ids": torch.randint(0, 11, (2, 5)), "mask": torch.ones(2, 5)}
    geta = gt.GETA(KeywordOnly(), (), example_kwargs=kwargs, quantize=gt.QuantConfig(activations=True))
    geta.calibrate([()])
    assert geta.activation_bit_widths().keys() == {"first", "second"} and geta.bit_widths().keys() == {"table", "first", "second"}
    geta.mask(every_third(geta))
    subnet = geta.construct_subnet()
    assert_same(evaluate(subnet, **kwargs), evaluate(geta.model, **kwargs), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_subnet_takes_other_batch_sizes_than_the_example(batch: int) -> None:
    geta = gt.GETA(cnn(), IMAGES[:1], quantize=None)
    geta.mask(every_third(geta))
    subnet, images = geta.construct_subnet(), torch.randn(batch, 3, 6, 6)
    for network in (subnet, subnet.geta_info.graph):
        # sums of 72 terms in another order, float32
        assert_same(evaluate(network, images), evaluate(geta.model, images), atol=1e-6)


class FixedBatch(nn.Module):
    """Works for two rows alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)).reshape(1, 16))


def test_a_model_whose_batch_cannot_change_is_traced_as_it_is() -> None:
    geta = gt.GETA(FixedBatch(), ROWS[:2], quantize=None)
    assert not geta.trace.dynamic_batch
    geta.mask([0])
    assert_same(evaluate(geta.construct_subnet(), ROWS[:2]), evaluate(geta.model, ROWS[:2]), atol=1e-6)


def test_modes_stay_and_a_subnet_has_the_modes_of_its_model() -> None:
    model = cnn().train()
    model[4].eval()
    geta = gt.GETA(model, IMAGES)
    assert model.training and not model[4].training
    running = model[1].running_mean.clone()
    geta.mask([0])
    subnet = geta.construct_subnet()
    assert subnet.training and subnet[1].training and not subnet[4].training
    assert torch.equal(model[1].running_mean, running), "the model ran in train mode"


@pytest.mark.parametrize(("pattern", "kept"), [("0", {"3"}), ("0.weight", {"3"}), ("[03]*", set()), ("1.bias", {"3"})])
def test_protect_takes_modules_parameters_and_patterns(pattern: str, kept: set[str]) -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=None, protect=[pattern])
    assert {family.module_path for family in geta.families} == kept
    assert any("request" in entry.reason for entry in geta.protected)


def test_a_second_geta_takes_over_and_says_so() -> None:
    model = cnn()
    first = gt.GETA(model, IMAGES)
    before, outputs = snapshot(model), evaluate(model, IMAGES)
    second = gt.GETA(model, IMAGES)
    assert_unchanged(model, before)
    assert_same(evaluate(model, IMAGES), outputs)
    assert set(second.quantizers.taken_over) == {"0", "3", "8"} == set(second.quantizers.weights) and not first.quantizers.taken_over
    assert all(second.quantizers.weights[layer] is first.quantizers.weights[layer] for layer in second.quantizers.weights)
    assert [g.slices for g in second.groups] == [g.slices for g in first.groups]


def test_a_second_geta_adds_what_the_first_left_out_and_nothing_twice() -> None:
    model = cnn()
    gt.GETA(model, IMAGES)
    second = gt.GETA(model, IMAGES, quantize=gt.QuantConfig(activations=True))
    assert set(second.quantizers.activations) == {"0", "3", "8"}
    third = gt.GETA(model, IMAGES, quantize=None)
    assert third.bit_widths() == second.bit_widths() and third.quantizers.activations.keys() == {"0", "3", "8"}
    assert len([m for m in model.modules() if type(m).__name__ == "ActivationQuantizer"]) == 3


def test_quantization_changes_no_group() -> None:
    plain = gt.GETA(Residual(), IMAGES, quantize=None)
    quantized = gt.GETA(Residual(), IMAGES, quantize=gt.QuantConfig(activations=True))
    assert list(plain.groups) == list(quantized.groups) and len(plain.groups) == 8


def test_only_pruning_leaves_no_quantizer() -> None:
    model = cnn()
    geta = gt.GETA(model, IMAGES, quantize=None)
    assert geta.quantizers is None and geta.bit_widths() == {} == geta.activation_bit_widths()
    assert geta.calibrate([IMAGES]) == () and list(model.state_dict()) == list(cnn().state_dict())


def test_uncalibrated_inputs_are_an_error_that_names_the_layers() -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True))
    for call in (
        geta.construct_subnet,
        lambda: geta.qasso(torch.optim.SGD, lr=0.1, budget=gt.Budget(), schedule=gt.Schedule.for_steps(100)),
    ):
        with pytest.raises(CalibrationError, match=r"(?s)no range yet.*at: .*0, 3, 8.*try: .*calibrate"):
            call()


def test_a_model_without_values_has_groups_and_a_preview() -> None:
    with torch.device("meta"):
        model, images = cnn(), torch.empty(2, 3, 6, 6)
    geta = gt.GETA(model, images)
    assert len(geta.groups) == 16 and set(geta.bit_widths().values()) == {16}
    dense = gt.GETA(cnn(), IMAGES)
    assert geta.preview(gt.Budget()).relative_bops == dense.preview(gt.Budget()).relative_bops


def test_integer_parameters_are_carried_along() -> None:
    model = cnn()
    model.table = nn.Parameter(torch.arange(6, dtype=torch.int8).view(2, 3), requires_grad=False)
    geta = gt.GETA(model, IMAGES)
    geta.mask([0])
    assert torch.equal(geta.construct_subnet().table, model.table)


def test_an_input_without_axes_is_taken() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x) * factor))

    geta = gt.GETA(Scaled(), (ROWS, torch.tensor(0.5)), quantize=None)
    geta.mask([1, 2])
    assert_same(evaluate(geta.construct_subnet(), ROWS, torch.tensor(2.0)), evaluate(geta.model, ROWS, torch.tensor(2.0)), atol=1e-6)


def test_a_built_optimizer_and_a_class_do_the_same() -> None:
    results = []
    for built in (False, True):
        torch.manual_seed(0)
        geta = gt.GETA(cnn(), IMAGES)
        parameters = [p for name, p in geta.model.named_parameters() if not name.endswith(("step_size", "clip_max", "exponent"))]
        options: dict[str, Any] = {"budget": gt.Budget(), "schedule": gt.Schedule(1, 3, 1, 4, 2)}
        if built:
            optimizer = geta.qasso(torch.optim.SGD(parameters, lr=0.05), **options)
        else:
            optimizer = geta.qasso(torch.optim.SGD, lr=0.05, **options)
        train(geta.model, optimizer, range(9))
        results.append(evaluate(geta.model, IMAGES))
    assert_same(*results)


def test_it_shows_itself() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    report = geta.report(geta.construct_subnet())
    for thing in (geta, geta.trace, geta.qadg, geta.groups, geta.families[0], geta.groups[0], geta.protected, report):
        bundle = thing._repr_mimebundle_()
        assert bundle["text/plain"] and "\n<" not in repr(thing)
        assert "object at 0x" not in repr(thing)


def test_the_package_re_exports_its_names() -> None:
    assert set(gt.__all__) >= {"GETA", "QASSO", "Budget", "GetaError", "Group", "LayerBudget", "QuantConfig", "Schedule", "load", "save"}
    assert all(hasattr(gt, name) for name in gt.__all__)
    from geta_nb import errors

    assert all(issubclass(e, (gt.GetaError, errors.GetaWarning)) for e in vars(errors).values() if inspect.isclass(e))
