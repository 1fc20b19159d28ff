"""Laws of groups over the zoo, over odd nets and over random ones: partition, exact removal, safety, and quantization changes nothing."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extent import WHOLE
from tests.zoo import laws
from tests.zoo.cases import Case, case_of, odd_case
from tests.zoo.catalogue import CORE, TESTED, ZOO
from tests.zoo.odd_nets import ODD
from tests.zoo.random_nets import Random, example_input, random_conv_nets, random_mlps

# a few seconds each; the rest of the zoo, 5 to 60 s a net on a busy machine, is for the slow tier
QUICK = {"flatten_linear", "group_norm", "shared_conv", "tied_linear", "glu_chunk", "bare_parameter"}


def _marked(name: str) -> Any:
    return pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


@pytest.fixture(scope="module", params=[_marked(name) for name in ZOO if name in CORE])
def case(request: pytest.FixtureRequest) -> Case:
    """One net; all its tests run one after another, so that each mode is exported once."""
    return case_of(request.param)


def test_no_index_of_a_parameter_is_in_two_groups(case: Case) -> None:
    laws.check_partition(case.plain)


@pytest.mark.parametrize("mode", ["plain", "weights", "both"])
def test_cut_network_computes_what_the_masked_one_computes(case: Case, mode: str) -> None:
    geta = getattr(case, mode)
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))


def test_one_group_left_of_every_family_is_still_exact(case: Case) -> None:
    laws.check_exact_removal(case.plain, laws.some_groups(case.plain, seed=1, share=1.0))


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_few_or_most_groups_go_exactly_and_cost_what_the_preview_says(case: Case, share: float) -> None:
    subnet = laws.check_exact_removal(case.plain, laws.some_groups(case.plain, seed=int(10 * share), share=share))
    laws.check_preview(case.plain, subnet)


def test_a_subnet_is_compressed_again(case: Case) -> None:
    with laws.weights_restored(case.plain.model):
        case.plain.mask(laws.some_groups(case.plain, seed=3))
        subnet = case.plain.construct_subnet()
    laws.check_second_compression(case.plain, subnet)


def test_a_file_takes_every_size_that_the_network_takes_or_names_the_axis(case: Case, tmp_path: Path) -> None:
    laws.check_any_size(case.both, laws.some_groups(case.both, seed=4), tmp_path / "net")


def test_quantization_changes_no_group(case: Case) -> None:
    plain = laws.slice_sets(case.plain)
    assert laws.slice_sets(case.weights) == plain
    assert laws.slice_sets(case.both) == plain


def test_folding_torchs_own_trace_of_the_quantized_net_gives_the_same_graph(case: Case) -> None:
    laws.check_same_graph(case.both)


def test_each_quantizer_sits_on_the_layer_whose_weight_it_quantizes(case: Case) -> None:
    geta = case.both
    assert geta.quantizers is not None
    owners: dict[str, set[str]] = {}
    for name, layer in geta.quantizers.parameter_layer.items():  # a tied weight has a name in each module that owns it
        owners.setdefault(layer, set()).add(name.rpartition(".")[0])
    seen = set()
    for vertex in geta.qadg.vertices:
        for layer, own in ((vertex.weight_quantizer, owners), (vertex.input_quantizer, {})):
            if layer is not None:
                # an attention's own projections run in the forward of the attention itself
                assert any(_is_within(path, vertex.module_path) for path in own.get(layer, {layer})), vertex
                seen.add(layer)
    assert seen == {*geta.quantizers.weights, *geta.quantizers.activations}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TESTED if name not in CORE])
def test_further_net_has_the_same_groups_quantized_and_is_cut_exactly(name: str, tmp_path: Path) -> None:
    """One cut a net here, each net another share of its groups; ``make zoo`` tries all shares in all modes.

    So with what costs a trace more: a third has quantizers and is traced once more with them, another third, without any, at all sizes.
    """
    case, draw = case_of(name), zlib.crc32(name.encode())
    further = draw // 12 % 3
    laws.check_partition(case.plain)
    assert not {entry.operator for entry in case.plain.protected if entry.reason.startswith("an operator without a rule")}
    if WHOLE or further == 0:
        assert laws.slice_sets(case.both) == laws.slice_sets(case.plain)
        laws.check_same_graph(case.both)
    geta = case.both if further == 0 or (WHOLE and further == 2) else case.plain
    subnet = laws.check_exact_removal(geta, laws.some_groups(geta, seed=draw, share=(0.1, 0.3, 0.6, 1.0)[draw // 3 % 4]))
    if geta is case.plain:
        laws.check_preview(geta, subnet)
    if WHOLE or further == 1:
        laws.check_any_size(geta, laws.some_groups(geta, seed=draw + 1), tmp_path / "net")


def _is_within(path: str, module_path: str) -> bool:
    return path == module_path or not module_path or path.startswith(f"{module_path}.")


def test_nothing_in_the_zoo_is_without_a_rule(case: Case) -> None:
    assert not {entry.operator for entry in case.plain.protected if entry.reason.startswith("an operator without a rule")}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if i % 8 == 0 else [pytest.mark.slow]) for i, name in enumerate(ODD)])
def test_odd_net_has_its_groups_and_is_cut_exactly_or_says_what_protects_it(name: str) -> None:
    geta = odd_case(name).plain
    assert len(geta.groups) == ODD[name].groups, [(f.name, len(f.groups)) for f in geta.families]
    laws.check_partition(geta)
    if ODD[name].groups:
        laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))
        laws.check_exact_removal(geta, laws.some_groups(geta, seed=1, share=1.0))
    else:
        assert ODD[name].blamed in {entry.operator for entry in geta.protected}, geta.protected


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, odd in ODD.items() if odd.groups])
def test_odd_net_has_the_same_groups_quantized_and_is_cut_exactly(name: str) -> None:
    geta = odd_case(name).both
    assert laws.slice_sets(geta) == laws.slice_sets(odd_case(name).plain)
    laws.check_same_graph(geta)
    laws.check_exact_removal(geta, laws.some_groups(geta, seed=0))


def _check_random(net: Random) -> None:
    geta = laws.geta_of(net.double(), (example_input(net).double(),))
    laws.check_partition(geta)
    for seed, share in ((0, 0.3), (1, 1.0)):
        laws.check_exact_removal(geta, laws.some_groups(geta, seed, share))


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.one_of(random_conv_nets(5), random_mlps(4)))
def test_random_net_is_cut_exactly(net: Random) -> None:
    _check_random(net)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.one_of(random_conv_nets(), random_mlps()))
def test_larger_random_net_is_cut_exactly(net: Random) -> None:
    _check_random(net)
