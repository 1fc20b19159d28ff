"""What may not be saved is named, and an old file stays whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geta_nb.errors import ArtifactError
from geta_nb.files import container
from geta_nb.files.save_load import save
from geta_nb.subnet.build import WeightFormat
from geta_nb.subnet.graph_net import GraphNet
from tests.files.nets import conv_net, graph_subnet, image


def test_a_weight_that_moved_off_its_grid_is_named(subnet: GraphNet, saved: Path) -> None:
    before = saved.read_bytes()
    with torch.no_grad():
        subnet.get_parameter("body.0.weight").view(-1)[3] += 1e-7
    with pytest.raises(ArtifactError, match=r"(?s)not on its grid.*body\.0\.weight.*1 of 288.*construct_subnet"):
        save(subnet, saved)
    assert saved.read_bytes() == before, "a refused save leaves the old file"
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(subnet: GraphNet, tmp_path: Path, value: float) -> None:
    with torch.no_grad():
        subnet.get_parameter("stem.weight")[0, 0, 0, 0] = value
    with pytest.raises(ArtifactError, match=r"stem\.weight"):
        save(subnet, tmp_path / "net")


def test_a_code_that_needs_more_bits_is_named(subnet: GraphNet, tmp_path: Path) -> None:
    with torch.no_grad():
        subnet.get_parameter("stem.weight")[0, 0, 0, 0] = 8 * subnet.geta_info.formats["stem.weight"].step_size
    with pytest.raises(ArtifactError, match=r"(?s)too large.*stem\.weight.*-7 to 7 for 4 bits.*8"):
        save(subnet, tmp_path / "net")


@pytest.mark.parametrize(("narrow_range", "code"), [(True, 8), (True, -8), (False, 8), (False, -9)])
def test_the_lowest_code_fits_only_where_codes_are_not_symmetric(narrow_range: bool, code: int, subnet: GraphNet, tmp_path: Path) -> None:
    form = replace(subnet.geta_info.formats["stem.weight"], narrow_range=narrow_range)
    subnet.geta_info.formats["stem.weight"] = form
    with torch.no_grad():
        subnet.get_parameter("stem.weight")[0, 0, 0, 0] = code * form.step_size
    lowest = -7 if narrow_range else -8
    with pytest.raises(ArtifactError, match=rf"(?s)too large.*stem\.weight.*{lowest} to 7 for 4 bits.*{code}"):
        save(subnet, tmp_path / "net")


def test_a_module_that_is_no_subnet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)no subnet.*ConvNet.*construct_subnet"):
        save(conv_net(), tmp_path / "net")


def test_a_format_without_a_weight_is_refused(subnet: GraphNet, tmp_path: Path) -> None:
    subnet.geta_info.formats["ghost.weight"] = WeightFormat(4, 1.0, 7.0, 1.0)
    with pytest.raises(ArtifactError, match=r"ghost\.weight"):
        save(subnet, tmp_path / "net")


def test_a_missing_folder_is_an_artifact_error(subnet: GraphNet, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)cannot be written.*FileNotFoundError"):
        save(subnet, tmp_path / "no" / "net")


def test_a_save_that_breaks_leaves_the_old_file(subnet: GraphNet, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(container.os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        save(subnet, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize(("axis", "channels"), [(0, 7), (0, 9), (1, 8), (4, 8), (-1, 3)])
def test_another_number_of_steps_than_channels_is_refused(axis: int, channels: int, subnet: GraphNet, tmp_path: Path) -> None:
    subnet.geta_info.formats["stem.weight"] = WeightFormat(4, (0.5,) * channels, (3.5,) * channels, 1.0, axis=axis)
    with pytest.raises(ArtifactError, match=rf"(?s)another number of steps.*stem\.weight.*{channels} steps on axis {axis}"):
        save(subnet, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_a_weight_off_the_step_of_its_channel_is_named(tmp_path: Path) -> None:
    net = graph_subnet(conv_net(), (image(),), axis=0)
    with torch.no_grad():
        net.get_parameter("stem.weight")[5, 0, 0, 0] += 1e-7
    with pytest.raises(ArtifactError, match=r"(?s)not on its grid.*stem\.weight.*step of its channel \(axis 0\).*1 of 216"):
        save(net, tmp_path / "net")
