"""What the explorer tells at a click: histograms, grids, attributes, strips; and that asking changes nothing, even while a run trains."""

from __future__ import annotations

import base64
import copy
import json
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import geta_nb as gt
from geta_nb.quantizers import ActivationQuantizer, WeightQuantizer, parameter_tensors
from geta_nb.widgets.attributes import attributes
from geta_nb.widgets.graph_layers import find_layers
from geta_nb.widgets.group_strip import CELLS, NO_GRADIENT, NO_OPTIMIZER, PAPER, SALIENCY, find_scores, norms_and_alive, strip
from geta_nb.widgets.weight_histogram import BINS, grid, histogram, packed
from tests.small_nets import IMAGES, Residual, cnn, train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries, when they are first imported
    pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
    Explorer = gt.Explorer


def unpacked(text: str) -> np.ndarray[Any, Any]:
    return (np.frombuffer(base64.b64decode(text), dtype=np.uint8) / 255.0) ** 2


def asked(explorer: Any, **question: Any) -> dict[str, Any]:
    """The answer to a question sent as the page sends it."""
    sent: list[dict[str, Any]] = []
    explorer.send = sent.append
    explorer._handle_custom_msg({"kind": "details", **question}, [])
    (answer,) = sent
    json.dumps(answer, allow_nan=False)
    return answer


def vertex(explorer: Any, name: str) -> int:
    return int(explorer._data["nodes"]["name"].index(name))


# -- histograms ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_histogram_counts_what_numpy_counts(dtype: torch.dtype) -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[::7] = 0
    found = histogram(values.view(100, 50), torch.tensor(1.0))
    assert found is not None
    wide = values.double().numpy()
    shares = (wide[wide != 0] - wide.min()) / (wide.max() - wide.min())
    counts = np.histogram(shares.astype(np.float32), BINS, (0, 1))[0]
    # a value on the border of two bins may fall on either side of it in float32: a few of 5000
    assert np.abs(unpacked(found["bins"]) * found["peak"] - counts).max() <= found["peak"] / 255 + 3
    assert found["n"] == 5000
    assert found["zero"] == pytest.approx((wide == 0).mean(), rel=1e-5)
    assert found["beyond"] == pytest.approx((np.abs(wide) > 1).mean(), rel=1e-5)
    assert (found["low"], found["high"]) == pytest.approx((wide.min(), wide.max()), rel=1e-5)


def test_parts_and_samples_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(37, 11, generator=torch.Generator().manual_seed(1))
    whole = histogram(values, torch.full((37, 1), 0.5))
    monkeypatch.setattr("geta_nb.widgets.weight_histogram.CHUNK", 16)
    assert histogram(values, torch.full((37, 1), 0.5)) == whole
    monkeypatch.setattr("geta_nb.widgets.weight_histogram.MOST_ON_CPU", 40)
    sample = histogram(values, torch.tensor(0.5))
    assert sample is not None
    assert whole is not None
    assert sample["every"] == 12, "11 would count one column alone"
    assert (sample["low"], sample["high"]) == (whole["low"], whole["high"])
    assert sample["n"] == whole["n"] == 37 * 11
    assert sample["beyond"] == pytest.approx(float((values.flatten()[::12].abs() > 0.5).float().mean()), rel=1e-5)
    assert sample["peak"] < whole["peak"]


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=40))
def test_any_values_give_finite_figures(values: list[float]) -> None:
    found = histogram(torch.tensor(values))
    assert found is not None
    json.dumps(found, allow_nan=False)
    tensor = torch.tensor(values)
    bad, zero = int((~tensor.isfinite()).sum()), int((tensor == 0).sum())
    assert found.get("bad", 0) == bad
    assert (found["peak"] > 0) == (len(values) > bad + zero), "what is finite and not 0 is in some bin"


def test_what_has_no_values_has_no_histogram() -> None:
    for tensor in (torch.empty(3, device="meta"), torch.tensor([1, 2]), torch.empty(0), torch.eye(2).to_sparse()):
        assert histogram(tensor) is None


def test_a_byte_keeps_the_smallest_share_apart_from_nothing() -> None:
    assert (unpacked(packed(np.array([0.0, 1e-9, 1.0]))) > 0).tolist() == [False, True, True]


# -- grids ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "narrow"), [(2, True), (2, False), (4, False), (5, True)])
def test_the_grid_says_every_level_that_the_quantizer_gives(bits: int, narrow: bool) -> None:
    quantizer = WeightQuantizer(torch.tensor(0.7), initial_bits=bits, narrow_range=narrow)
    found = grid(quantizer)
    assert found is not None
    highest = round(found["clip"] ** found["exponent"] / found["step"])
    lowest = -highest if found["narrow"] else -highest - 1
    given = quantizer(torch.linspace(-2, 2, 4001)).detach().unique().tolist()
    # the grid is told with six digits
    assert given == pytest.approx([code * found["step"] for code in range(lowest, highest + 1)], rel=1e-5, abs=1e-9)


def test_of_several_channels_the_widest_is_told() -> None:
    found = grid(WeightQuantizer(torch.tensor([[0.5], [2.0], [1.0]]), initial_bits=4, narrow_range=True))
    assert found is not None
    assert (found["clip"], found["channels"], found["narrowest"]) == (2.0, 3, 0.5)
    assert found["step"] == pytest.approx(2 / 7, rel=1e-5)


def test_an_input_without_a_range_says_so_and_one_that_learned_since_says_for_how_long() -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True))
    explorer = Explorer(geta)
    at = vertex(explorer, "conv2d_1")
    assert grid(ActivationQuantizer(torch.ones(1))) is None
    assert asked(explorer, vertex=at)["input"] == {"missing": True}
    geta.calibrate([IMAGES])
    assert asked(explorer, vertex=at)["input"]["steps"] == 0
    train(geta.model, geta.qasso(torch.optim.SGD, lr=0.01, budget=gt.Budget(0.5), schedule=gt.Schedule(1, 2, 1, 2, 1)), range(3))
    found = asked(explorer, vertex=at)["input"]
    assert (found["steps"], found["signed"]) == (3, False)


# -- attributes ----------------------------------------------------------------------------------------------------------------------


class Told(nn.Module):
    """Operators that are told much."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), nn.GroupNorm(2, 6, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).softmax(dim=1)
        return x.reshape(x.shape[0], -1).mean(dim=-1, keepdim=True)


def test_attributes_are_what_an_operator_was_told_besides_tensors() -> None:
    geta = gt.GETA(Told(), IMAGES, quantize=None)
    told = {node.name: dict(attributes(node)) for node in find_layers(geta.qadg).nodes}
    conv = next(found for name, found in told.items() if "conv" in name and found)
    assert conv == {"stride": "2, 2", "padding": "1, 1", "dilation": "1, 1", "groups": "3"}
    assert any(found.get("eps") == "0.001" and found.get("num_groups", found.get("group")) == "2" for found in told.values())
    assert any(found.get("dim") == "1" for name, found in told.items() if "softmax" in name)
    assert any(found.get("keepdim") == "yes" for found in told.values())
    assert any(f"{len(IMAGES)}, -1" in found.values() for found in told.values()), "a size that the graph computes stands as it was"


# -- strips --------------------------------------------------------------------------------------------------------------------------


def test_before_there_is_an_optimizer_norms_order_the_groups_and_the_strip_says_so() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    dead = [group.index for group in list(geta.families[1].groups)[2:5]]
    geta.mask(dead)
    found = asked(Explorer(geta), family=1)["strip"]
    tensors = dict(parameter_tensors(geta.model))
    norms = []
    for group in geta.families[1].groups:
        parts = [tensors[name].detach().index_select(axis, torch.tensor(rows)) for name, axis, rows in group.producers if name in tensors]
        norms.append(float(torch.cat([part.flatten() for part in parts]).norm()))
    expected = sorted(range(len(norms)), key=lambda i: (norms[i] > 0, norms[i], i))
    assert (found["words"], found["n"], found["zero"], found["order"]) == (NO_OPTIMIZER, 8, 3, expected)
    assert unpacked(found["kept"]).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert found["high"] == pytest.approx(max(norms), rel=1e-3)
    assert unpacked(found["levels"])[-1] == 1


def test_once_there_is_a_saliency_it_orders_the_groups() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.01, budget=gt.Budget(0.5), schedule=gt.Schedule(1, 2, 1, 6, 2))
    explorer = Explorer(geta)
    assert asked(explorer, family=0)["strip"]["words"] == NO_GRADIENT
    train(geta.model, optimizer, range(5))
    found, scores = asked(explorer, family=0)["strip"], optimizer.saliency()
    assert found["words"] == SALIENCY
    members = [group.index for group in geta.families[0].groups]
    expected = sorted(range(len(members)), key=lambda i: (bool(scores["alive"][members[i]]), abs(scores["scores"][members[i]]), i))
    assert found["order"] == expected
    assert ("fade" in found) == bool(scores["fading"][members].any())


def test_the_papers_saliency_is_told_where_there_are_gradients() -> None:
    geta = gt.GETA(cnn(), IMAGES)
    optimizer = geta.qasso(torch.optim.SGD, lr=0.01, budget=gt.Budget(0.5), schedule=gt.Schedule(1, 2, 1, 6, 2), rules="paper")
    train(geta.model, optimizer, range(4))
    optimizer.zero_grad()
    assert asked(Explorer(geta), family=0)["strip"]["words"] == NO_GRADIENT
    geta.model(IMAGES).sum().backward()
    assert asked(Explorer(geta), family=0)["strip"]["words"] == PAPER


def test_groups_of_a_residual_are_judged_by_all_their_producers() -> None:
    geta = gt.GETA(Residual(), IMAGES)
    norms, alive = norms_and_alive(geta)
    assert alive.all()
    for family in range(len(geta.families)):
        own, _ = norms_and_alive(geta, family)
        members = geta.groups.table.family_of == family
        assert own[members].tolist() == norms[members].tolist()
        assert not own[~members].any()


def test_of_many_groups_each_cell_stands_for_several() -> None:
    geta = gt.GETA(nn.Sequential(nn.Linear(4, 1000), nn.ReLU(), nn.Linear(1000, 2)), torch.randn(3, 4))
    geta.mask(range(500))
    norms, alive = norms_and_alive(geta)
    found = strip(geta, 0, find_scores(geta, norms), alive)
    assert (found["n"], found["zero"], len(unpacked(found["levels"])), "order" in found) == (1000, 500, CELLS, False)
    assert unpacked(found["kept"]).sum() == pytest.approx(CELLS / 2, abs=1)
    assert (np.diff(unpacked(found["levels"])) >= 0).all()


# -- answers -------------------------------------------------------------------------------------------------------------------------


def test_an_answer_bears_the_key_of_its_question_and_only_what_there_is() -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(initial_bits=4))
    explorer = Explorer(geta)
    answer = asked(explorer, vertex=vertex(explorer, "conv2d_1"), family=1, key="k")
    assert set(answer) == {"kind", "key", "attributes", "weight", "strip"}
    assert (answer["kind"], answer["key"]) == ("details", "k")
    assert explorer._data["tensors"][answer["weight"]["tensor"]][0] == "3.weight"
    assert answer["weight"]["grid"]["bits"] == 4
    assert set(asked(explorer, vertex=vertex(explorer, "relu"))) == {"kind", "key"}
    for bad in ({}, {"vertex": "0", "family": True}, {"vertex": -1, "family": 99}, {"vertex": None, "family": None}):
        assert set(asked(explorer, **bad)) == {"kind", "key"}


def test_what_cannot_be_read_is_said_and_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = Explorer(gt.GETA(cnn(), IMAGES))
    monkeypatch.setattr(type(explorer.geta), "_optimizer", property(lambda _: 1 / 0), raising=False)
    del explorer.geta.__dict__["_optimizer"]
    assert asked(explorer, family=0)["problem"] == "ZeroDivisionError: division by zero"


def test_a_network_without_values_answers_what_it_can() -> None:
    with torch.device("meta"):
        explorer = Explorer(gt.GETA(cnn(), torch.empty(2, 3, 6, 6)))
    answer = asked(explorer, vertex=vertex(explorer, "conv2d_1"), family=0)
    assert "weight" not in answer
    assert answer["attributes"][0] == ["stride", "1, 1"]
    page = explorer.page_data()["details"]
    assert page["strips"] == []


def test_a_page_brings_every_answer_along() -> None:
    geta = gt.GETA(cnn(), IMAGES, quantize=gt.QuantConfig(activations=True))
    geta.calibrate([IMAGES])
    explorer = Explorer(geta)
    page = json.loads(json.dumps(explorer.page_data()["details"], allow_nan=False))
    for index in explorer._data["vertices"]:
        answer = json.loads(json.dumps(asked(explorer, vertex=int(index))))
        texts = page["attributes"]
        assert answer.get("attributes") == (texts["texts"][texts["of"][str(index)]] if str(index) in texts["of"] else None)
        brought = page["vertices"].get(str(index), {})
        assert {key: answer[key] for key in ("weight", "input") if key in answer} == brought
    assert page["strips"] == [asked(explorer, family=family)["strip"] for family in range(len(geta.families))]


def test_a_pages_answers_stay_small() -> None:
    geta = gt.GETA(nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 64)), torch.randn(2, 64))
    details = Explorer(geta).page_data()["details"]
    # two histograms of 64 bytes and their words; two rows of 256 cells; all in base64
    assert len(json.dumps(details)) < 2500


# -- while a run trains --------------------------------------------------------------------------------------------------------------


def test_asking_while_a_run_trains_changes_no_bit_of_it() -> None:
    torch.manual_seed(0)
    alone = gt.GETA(cnn(), IMAGES)
    watched = copy.deepcopy(alone)
    outcomes = []
    for geta, ask in ((alone, False), (watched, True)):
        optimizer = geta.qasso(torch.optim.Adam, lr=0.01, budget=gt.Budget(0.5), schedule=gt.Schedule(2, 4, 2, 20, 4))
        explorer, enough = Explorer(geta), threading.Event()

        def step(i: int, geta: gt.GETA = geta, optimizer: Any = optimizer, wait: Any = enough.wait if ask else None) -> dict[str, Any]:
            if wait and i == 20:
                wait(60)  # some questions come while it trains, however quick it is
            optimizer.zero_grad()
            loss = geta.model(IMAGES).square().mean()
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}

        run = gt.LiveRun(step, geta, optimizer, total_steps=30).start()
        answers = []
        while ask and run.state == "running":
            answers.append(asked(explorer, vertex=vertex(explorer, "conv2d_1"), family=1))
            if len(answers) == 3:
                enough.set()
        run.wait()
        if ask:
            assert len(answers) >= 3
            assert all("problem" not in answer and "weight" in answer and "strip" in answer for answer in answers)
        outcomes.append([tensor.detach().clone() for tensor in parameter_tensors(geta.model).values()])
        assert all(tensor.requires_grad for tensor in parameter_tensors(geta.model).values())
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_the_search_is_kept_by_the_explorer() -> None:
    explorer = Explorer(gt.GETA(cnn(), IMAGES), query="bits<8")
    explorer.set_state({"query": "type:conv", "queries": ["type:conv", "bits<8"]})
    assert (explorer.query, explorer.queries) == ("type:conv", ["type:conv", "bits<8"])
