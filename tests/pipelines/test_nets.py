"""The pipelines' own networks have their published sizes and can be compressed; tables, pictures and reports say what was measured."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ArtifactError, ConfigError
from geta_nb.pipelines import ablation, conv_nets, pictures, published, results, simple_vit, vision_nets
from geta_nb.pipelines.batches import Batches
from geta_nb.pipelines.loop import Task
from geta_nb.pipelines.run import Run
from geta_nb.pipelines.tables import Table
from geta_nb.views import find_view


def size(net):
    return sum(p.numel() for p in net.parameters())


def test_resnets_have_their_published_size():
    # by hand (He et al. 2016, table 6: 0.27M and 0.85M), with two 1x1 shortcuts and their norms
    convs = 3 * 16 * 9 + 6 * 16 * 16 * 9 + (16 * 32 + 5 * 32 * 32) * 9 + (32 * 64 + 5 * 64 * 64) * 9
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert size(conv_nets.resnet20()) == convs + norms + shortcuts + 64 * 10 + 10
    assert round(size(conv_nets.ResidualNet(9)) / 1e6, 2) == 0.86
    assert conv_nets.resnet20(7, width=4)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_vgg7_is_two_of_128_256_512_and_two_linear_layers():
    net = conv_nets.vgg7()
    assert [m.out_channels for m in net if isinstance(m, nn.Conv2d)] == [128, 128, 256, 256, 512, 512]
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [1024, 10]
    assert conv_nets.vgg7(5, width=4)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_simple_vit_has_its_published_size_and_positions():
    # arXiv:2205.01580: ViT-S/16, 22M parameters
    assert round(size(simple_vit.SimpleViT()) / 1e6) == 22
    positions = simple_vit.sine_positions(2, 3, 8)
    # second row, third column: sine and cosine of 2, then of 1, at frequencies 1 and 1/10000; float32
    x, y = (torch.tensor([place, place / 10_000]) for place in (2.0, 1.0))
    torch.testing.assert_close(positions[5], torch.cat([x.sin(), x.cos(), y.sin(), y.cos()]), rtol=1e-6, atol=1e-7)
    with pytest.raises(ConfigError, match="patches do not fit"):
        simple_vit.SimpleViT(image_size=30, patch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "millions"), [("ViT-Small", 22), ("DeiT-Tiny", 6), ("Swin-Tiny", 28), ("PVTv2", 4), ("ResNet50", 26)])
def test_full_sizes_are_the_published_ones(name, millions):
    with torch.device("meta"):
        assert round(size(vision_nets.vision_net(name, "full", image_size=224, classes=1000)) / 1e6) == millions


@pytest.mark.parametrize("name", [*vision_nets.NETS, "SimpleViT"])
def test_every_vision_net_is_the_same_for_the_same_seed(name):
    first, second = (vision_nets.vision_net(name, "tiny", image_size=64, classes=3, seed=4) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_an_unknown_net_or_size_is_refused():
    with pytest.raises(ConfigError, match="ViT-Small"):
        vision_nets.vision_net("ViT", "tiny", image_size=64, classes=3)
    with pytest.raises(ConfigError, match="'full' or 'small' or 'tiny'"):
        vision_nets.vision_net("ViT-Small", "huge", image_size=64, classes=3)


@pytest.mark.parametrize("steps", [25, 100, 999])
def test_variants_have_the_same_length_and_leave_one_stage_out(steps):
    found = ablation.variants(steps)
    whole = found[ablation.WHOLE]
    for schedule in found.values():
        schedule.check_fits(steps)
    assert whole.warmup_steps and whole.projection_steps and whole.joint_steps and whole.cool_down_start < steps
    assert found["without warm-up"].warmup_steps == 0
    assert found["without projection"].projection_steps == 0 and found["without projection"].upper_bound(steps, (4, 16)) == 16
    assert whole.upper_bound(steps, (4, 16)) == 4
    assert found["joint in one step"].joint_steps == 1
    assert found["without cool-down"].cool_down_start == steps
    with pytest.raises(ConfigError, match="at least 25 steps"):
        ablation.variants(24)


# what is shown


def test_a_table_reads_as_text_and_escapes_its_html():
    table = Table("Which", ("net", "value"), [("<img onerror=x>", "1"), ("b", "22")], ("a note",))
    assert repr(table).splitlines() == ["Which", "net              value", "<img onerror=x>  1", "b                22", "a note"]
    html = find_view(table).html(table)
    assert "<img" not in html and "&lt;img" in html and "a note" in html
    assert table.to_dict()["rows"][1] == ["b", "22"]


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_every_published_figure_says_how_sure_it_is_and_unverified_ones_say_so(name):
    table = published.beside(name, [("ours", "90 %", 0.05)], stand_in=True)
    assert table.rows[0] == ["ours", "90 %", "5.00 %", published.MEASURED]
    assert all(row[3].startswith((published.TRANSCRIBED, published.UNVERIFIED)) for row in table.rows[1:])
    assert published.SOURCE in " ".join(table.notes) and published.STAND_IN in table.notes
    assert published.STAND_IN not in published.beside(name, [], stand_in=False).notes


def test_figures_from_memory_are_marked_unverified():
    """Those of the settings page that are not transcribed, one by one."""
    marked = {(f.method, f.quality) for rows in published.PUBLISHED.values() for f in rows if published.UNVERIFIED in f.sure}
    assert marked == {
        ("ANNC (unstructured)", "90.92 %"), ("QST-B (unstructured)", "91.50 %"), ("dense", "93.05 %"), ("DJPQ-restrict", "91.43 %"),
        ("Bayesian Bits", "91.96 %"), ("GETA, sparsity 40 %", "74.40 %"),
    }  # fmt: skip


def test_an_experiment_without_figures_prints_none():
    table = published.beside("carn", [("ours", "30 dB", 0.1)], stand_in=False)
    assert len(table.rows) == 1 and table.notes == [published.NO_FIGURES]


def test_pictures_are_saved_show_themselves_and_say_what_they_show(tmp_path):
    run = Run(tmp_path)
    drawn = [
        pictures.image_row(run, "row", torch.randint(0, 256, (3, 3, 5, 5)).to(torch.uint8), ["a", "b", "<c>"]),
        pictures.front(run, "front", {"x": (0.03, 0.91), "y": (0.1, 0.95)}, quality="accuracy", dense=0.96),
        pictures.curves(run, "curves", {"x": [{"step": 1, "accuracy": 0.5}, {"step": 2}, {"step": 3, "accuracy": 0.7}]}, key="accuracy"),
    ]
    assert [picture.label for picture in drawn] == [
        "3 images: a, b, <c> (stand-in data)",
        "accuracy against relative BOPs: x 0.91 at 3.00 %, y 0.95 at 10.00 % (stand-in data)",
        "accuracy over steps; at the end: x 0.7 (stand-in data)",
    ]
    assert pictures.image_row(Run(tmp_path / "real", data_dir=tmp_path), "row", torch.zeros(1, 3, 5, 5), ["a"]).label == "1 images: a"
    smoke = "1 images: a (stand-in data, a smoke run of seconds: the figures mean nothing)"
    assert pictures.image_row(Run(tmp_path / "smoke", smoke=True), "row", torch.zeros(1, 3, 5, 5), ["a"]).label == smoke
    for name, picture in zip(("row", "front", "curves"), drawn, strict=True):
        assert (tmp_path / f"{name}.png").read_bytes() == picture.png and picture.png.startswith(b"\x89PNG")
        html = results.html_of(picture)
        assert "data:image/png;base64," in html and "<c>" not in html
        assert set(picture._repr_mimebundle_()) == {"text/plain", "image/png"}


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x):
        return self.layers(x)


def squares(model):
    return {"mean": float((model(torch.ones(3, 6)) ** 2).mean())}


def task_of(evaluate):
    return Task(Batches(4, 2, lambda rows, generator: rows), lambda model, batch: model(batch), evaluate)


def test_a_report_has_every_row_its_settings_and_its_tables(tmp_path):
    run = Run(tmp_path, seed=3, rate=0.5)
    geta = gt.GETA(Sum(), torch.ones(2, 6))
    geta.mask([0])
    subnet = geta.construct_subnet()
    metrics = results.pack(run, subnet, "net", task_of(squares))
    report = results.measured(geta, subnet, metrics, dense={"mean": 0.25})
    table = Table("T", ("a",), [("b",)])
    rows = {"one": report, "two": report}
    written = results.write_report(run, "00_none", "Title <b>", rows=rows, shown=[table, report], extra={"more": 1})
    assert written == json.loads((tmp_path / "report.json").read_text())
    assert written["metrics"]["dense_mean"] == 0.25 and written["metrics"]["file"] == "net.safetensors"
    assert written["settings"] == {"smoke": False, "seed": 3, "stand_in": True, "rate": 0.5}
    assert set(written["rows"]) == {"one", "two"} and written["tables"] == [table.to_dict()] and written["more"] == 1
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Title &lt;b&gt;</h1>" in page and not re.search(r"https?://(?!www\.w3\.org)", page)


def test_a_file_that_gives_back_another_network_is_an_error(tmp_path):
    geta = gt.GETA(Sum(), torch.ones(2, 6))
    calls = []

    def changing(model):
        calls.append(model)
        return {"mean": float(len(calls))}

    with pytest.raises(ArtifactError, match="gives back another network"):
        results.pack(Run(tmp_path), geta.construct_subnet(), "net", task_of(changing))
