"""Sharded training (FSDP2) on gloo ranks: the same groups, bits and weights on all ranks, equal to one process; memory falls as 1/N."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.context
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests.qasso import sharded_checks, sharded_worker
from tests.qasso.nets import COLLAPSES
from tests.qasso.test_distributed import RTOL, distance

SIGNS = "ignore:QASSO. inputs of a layer are negative:geta_nb.errors.GetaWarning"  # one batch calibrates, others are trained on
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(COLLAPSES), pytest.mark.filterwarnings(SIGNS)]
CASES: list[tuple[int, dict[str, Any]]] = [
    (2, {"net": "mlp", "optimizer": "adamw", "clip": 0.5, "late": True}),
    (2, {"net": "mlp", "granularity": "channel", "accumulate": 2, "shard": {"reshard_after_forward": False}}),
    (2, {"net": "resnet", "budget": {"relative_bops": 0.012}, "optimizer": "adamw", "late": True, "accumulate": 2}),
    (2, {"net": "vit", "optimizer": "adamw"}),
    (4, {"net": "mlp", "rules": "paper", "optimizer": "adamw"}),
    (4, {"net": "mlp", "rules": "paper", "granularity": "channel", "budget": {"relative_bops": 0.02}}),
    (4, {"net": "resnet, norms stand", "budget": {"relative_bops": 0.012}, "hsdp": True, "clip": 0.5}),
    (4, {"net": "llama", "budget": {"relative_bops": 0.02}}),
    (4, {"net": "vit", "rules": "paper", "hsdp": True, "accumulate": 2}),
]
"""Ranks, and what is trained on them. Between them: all nets, both rules, K and costs, both optimizers, clipping, accumulation, HSDP."""
FACTS = ("alive", "bits", "groups", "k", "zero", "stage")


@cache
def processes() -> multiprocessing.context.ForkServerContext:
    """What makes processes that have everything imported already: that takes longer than what most ranks do."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.qasso.sharded_checks"])
    return found


class Started(NamedTuple):
    """The ranks of a run, and where their words go."""

    ranks: list[Any]
    words: list[Path]


def start(ranks: int, folder: Path, task: str, *arguments: Any, timeout: float = 120) -> Started:
    """One process a rank; nobody watches over them."""
    words = [folder / f"{task}.rank{rank}.words" for rank in range(ranks)]
    started = [
        processes().Process(target=sharded_worker.begin, args=(folder, task, arguments, rank, ranks, timeout, words[rank]))
        for rank in range(ranks)
    ]  # fmt: skip
    for process in started:
        process.start()
    return Started(started, words)


def ended(started: Started, timeout: float = 400) -> list[tuple[int, str]]:
    """Exit status and last words of each rank; none outlives its test."""
    deadline = time.monotonic() + timeout
    try:
        for process in started.ranks:
            process.join(max(0.0, deadline - time.monotonic()))
            assert process.exitcode is not None, "a rank goes on"
    finally:
        for process in started.ranks:
            process.kill()
    return [(process.exitcode, said.read_text()[-3000:]) for process, said in zip(started.ranks, started.words, strict=True)]


def run(ranks: int, folder: Path, task: str, *arguments: Any) -> None:
    for status, words in ended(start(ranks, folder, task, *arguments)):
        assert status == 0, words


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_end_alike_and_as_one_process(ranks: int, tmp_path: Path) -> None:
    cases = [case for count, case in CASES if count == ranks]
    run(ranks, tmp_path, "laws", cases)
    for number, case in enumerate(cases):
        results = [json.loads((tmp_path / f"case{number}.rank{rank}.json").read_text()) for rank in range(ranks)]
        assert all(result == results[0] for result in results), case  # weights and quantizers to the last bit
        geta, optimizer, _ = sharded_worker.train(case)
        alone = sharded_worker.result_of(geta, optimizer)
        assert {key: results[0][key] for key in FACTS} == {key: alone[key] for key in FACTS}, case
        assert results[0]["stage"] == "cool-down"
        if "budget" in case:
            assert 0 < results[0]["zero"] < 1 or case["net"] != "mlp"  # a cost is met by groups and bits together
        else:
            assert results[0]["k"] == results[0]["alive"].count(False) > 0
        close(alone["plan"], results[0]["plan"])
        found = torch.load(tmp_path / f"case{number}.pt", weights_only=True)
        assert found.keys() == (whole := sharded_worker.tensors_of(geta.model)).keys()
        assert distance(whole, found) < RTOL, case


def close(left: Any, right: Any) -> None:
    """The same plan; its prices are sums over the ranks, whose gradients differ by RTOL, and squares of them by twice that."""
    if isinstance(left, Mapping):
        assert left.keys() == right.keys()
        for key in left:
            close(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            close(one, other)
    else:
        assert left == pytest.approx(right, rel=1e-6, abs=1e-12) if isinstance(left, float) else left == right


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found of everything that is asked in one run."""
    return found_by(2, tmp_path_factory.mktemp("two"), list(sharded_checks.CHECKS))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same of four ranks, of what depends on their number."""
    return found_by(4, tmp_path_factory.mktemp("four"), ["memory", "messages, default"])


def found_by(ranks: int, folder: Path, names: list[str]) -> list[dict[str, Any]]:
    run(ranks, folder, "checks", names)
    return [json.loads((folder / f"checks.rank{rank}.json").read_text()) for rank in range(ranks)]


REFUSED = {
    "tensor_parallel": r"qasso: tensor parallelism \(parallelize_module\) is not supported.*at: +0\.weight.*Shard.*try: .*fully_shard",
    "analysed_after_tensor_parallel": r"GETA: tensor parallelism .*is not supported.*at: +0\.weight",
    "sharded_on_top_of_tensor_parallel": r"qasso: fully_shard on top of tensor.*not supported.*at: +0\.weight.*try: .*fully_shard alone",
    "over_some_of_the_ranks": r"qasso: parameters are sharded over several meshes, or over some of the ranks.*try: .*one mesh of all ranks",
    "over_two_meshes": r"qasso: parameters are sharded over several meshes.*try: .*one mesh of all ranks",
    "other_networks": r"qasso: ranks have different networks.*pipeline.*expected: one network.*rank \d",
    "analysed_afterwards": r"GETA: the model is sharded already.*at: +0\.weight.*got: .*DTensor.*try: .*gt\.GETA.*; fully_shard",
    "lbfgs": r"LBFGS",
    "late_tensor_parallel": r"QASSO\.step: tensor parallelism",
    "computed_weights": r"qasso: weights that parametrizations .* compute cannot be quantized while .*at: +0\.weight.*try: .*skip",
    "late_computed_weights": r"QASSO\.step: weights that parametrizations .* compute cannot be quantized.*at: +0\.weight",
}


def test_every_refusal_has_its_words() -> None:
    assert REFUSED.keys() == {check.__name__ for check in sharded_checks.REFUSALS}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name_on_all_ranks(name: str, two: list[dict[str, Any]], matches: Callable[..., None]) -> None:
    for found in two:
        matches(REFUSED[name], found[name])


@pytest.fixture
def matches() -> Callable[[str, str], None]:
    import re

    def check(pattern: str, text: str) -> None:
        assert re.search(f"(?s){pattern}", text), text

    return check


def test_nan_on_one_rank_is_an_error_on_all_and_nothing_is_changed(two: list[dict[str, Any]]) -> None:
    for found in two:
        rows, quantizer, batch = found["not_finite"]
        assert all("a gradient is not finite, so no weight was changed" in words for words in (rows, quantizer, batch))
    assert "rows that another rank has" in two[0]["not_finite"][0] and "2.weight" in two[1]["not_finite"][0]


@pytest.mark.parametrize("policy", ["half_precision", "half_precision_reduced", "offloaded"])
def test_policies_of_fully_shard_train_as_without_them(policy: str, two: list[dict[str, Any]]) -> None:
    left, right = (found[policy] for found in two)
    assert left["alike"] == right["alike"]
    assert left["kinds"] == ["torch.float32"] and left["alike"]["zero"] == 0.5 and left["last"] < left["first"]
    weights, inputs = left["alike"]["bits"]
    assert all(4 <= bits <= 8 and bits == int(bits) for bits in weights.values())
    assert all(6 <= bits <= 8 and bits == int(bits) for bits in inputs.values())


def test_a_scaler_leaves_a_step_out_on_all_ranks(two: list[dict[str, Any]]) -> None:
    assert two[0]["scaled"] == two[1]["scaled"]
    done = two[0]["scaled"]["done"]
    assert done[4] == done[5] == 5 and done[-1] == len(done) - 1


def test_held_weights_are_those_of_the_run(two: list[dict[str, Any]]) -> None:
    for found in two:
        held = found["held"]
        assert held["stray"] == 0 and held["sparsity"] == 0.5 and held["alive"] and held["bits"] and held["others"]


def test_memory_of_a_rank_falls_with_the_number_of_ranks(two: list[dict[str, Any]], four: list[dict[str, Any]]) -> None:
    one = sharded_checks.memory()
    assert min(one[key] for key in ("parameters", "gradients", "state")) > 500_000
    for ranks, found in ((2, two), (4, four)):
        for key, times in (("parameters", 1), ("gradients", 1), ("state", 2)):  # AdamW has two numbers a weight, and a counter a tensor
            bytes_of = [rank["memory"][key] for rank in found]
            counters = 8 * 2 * 10 if key == "state" else 0
            # rows go in blocks of one size: a rank has up to one row of each tensor more than its share
            assert max(bytes_of) <= one[key] / ranks + times * one["uneven"] + counters, (ranks, key)
            assert abs(sum(bytes_of) - one[key]) <= counters * ranks, (ranks, key)
        assert max(rank["memory"]["whole"] for rank in found) < 0.01 * one["parameters"]


BINS = 4096
"""Of a histogram: where ranges are fitted, one for each quantizer is added up over the ranks, whatever the size of the layer."""


@pytest.mark.parametrize("rules", ["default", "paper"])
def test_the_optimizer_sends_groups_never_weights(rules: str, two: list[dict[str, Any]]) -> None:
    for found in two:
        sent = found[f"messages, {rules}"]
        assert sent["zero"] == 0.5 and sent["whole"] == 512 * 512
        assert set(sent["names"]) <= {"c10d::allreduce_", "c10d::broadcast_"}  # nothing is gathered
        quantizers = sent["quantizers"] * BINS if rules == "default" else 3 * sent["quantizers"]
        assert sent["largest"] <= max(4 * sent["groups"], quantizers) < sent["whole"] / 2
        # a step sends one, with all sums in it, and by the paper's rules two more while groups fade; the few that choose send more
        usual = sum(count <= (1 if rules == "default" else 3) for count in sent["of_steps"])
        assert usual >= len(sent["of_steps"]) * 2 / 3, sent["of_steps"]
        assert sent["touched"] == sent["share"] == sent["whole"] / 2  # no tensor of a step is larger than what the rank has of a weight


def test_more_ranks_send_no_larger_messages_and_touch_less(two: list[dict[str, Any]], four: list[dict[str, Any]]) -> None:
    few, many = two[0]["messages, default"], four[0]["messages, default"]
    assert many["largest"] == few["largest"] and many["names"] == few["names"]
    assert many["touched"] == many["share"] == few["share"] / 2


def test_a_killed_rank_ends_the_run_on_all(tmp_path: Path) -> None:
    first, killed = ended(start(2, tmp_path, "killed", timeout=20), timeout=200)
    assert killed[0] == -9, killed
    assert first[0] == 1, first
    assert "Error" in first[1], first
