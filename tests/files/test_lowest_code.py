"""Codes that use the whole two's complement range, with the lowest one, through a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geta_nb.errors import ArtifactError
from geta_nb.files.save_load import load, save
from geta_nb.files.tensor_table import weight_codes
from geta_nb.subnet.graph_net import list_entries
from tests.files.nets import assert_same_tensors, conv_net, graph_subnet, image, ties
from tests.files.test_damaged_files import reseal
from tests.zoo.catalogue import ZOO


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bits", range(1, 17))
def test_the_lowest_code_of_every_width_comes_back(bits: int, axis: int | None, tmp_path: Path) -> None:
    net = graph_subnet(conv_net(), (image(),), bits=bits, axis=axis, narrow_range=False)
    again = load(save(net, tmp_path / "net"))
    assert_same_tensors(net, again)
    assert again.geta_info.formats == net.geta_info.formats
    for name, form in again.geta_info.formats.items():
        codes = weight_codes(again.get_parameter(name), form)
        assert int(codes.min()) == -(2 ** (bits - 1)) and int(codes.max()) <= 2 ** (bits - 1) - 1, name
    assert save(again, tmp_path / "again").read_bytes() == (tmp_path / "net").read_bytes()


def test_the_second_name_of_a_tied_weight_may_have_the_format(tmp_path: Path) -> None:
    entry = ZOO["tied_linear"]
    model = entry.build()
    net = graph_subnet(model, entry.inputs(2), entry.kwargs(2), narrow_range=False)
    (names,) = [names for names in ties(list(list_entries(net))) if len(names) > 1]
    order = [entry.name for entry in list_entries(net) if entry.name in names]
    (coded,) = names & net.geta_info.formats.keys()
    form = net.geta_info.formats.pop(coded)
    for name in order:
        net.geta_info.formats[name] = form
        again = load(save(net, tmp_path / "net"))
        assert again.geta_info.formats == net.geta_info.formats
        assert_same_tensors(net, again)
        del net.geta_info.formats[name]


@pytest.mark.parametrize("axis", [None, 0])
def test_a_file_that_claims_symmetric_codes_and_holds_the_lowest_one_is_refused(axis: int | None, tmp_path: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        header["formats"]["stem.weight"][4].pop("narrow")

    path = save(graph_subnet(conv_net(), (image(),), axis=axis, narrow_range=False), tmp_path / "net")
    reseal(path)
    assert not load(path).geta_info.formats["stem.weight"].narrow_range
    reseal(path, network=change)
    with pytest.raises(ArtifactError, match=r"(?s)outside the symmetric range.*stem\.weight.*at least -7.*got:\s*-8"):
        load(path)
