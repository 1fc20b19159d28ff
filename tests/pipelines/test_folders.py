"""Image folders, photographs and text: read as their formats say, split so that nothing is in both parts, measured by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from geta_nb.errors import ConfigError, InputError
from geta_nb.pipelines import carn, hf_nets, image_files, image_folder, superres, text
from geta_nb.pipelines.run import measure


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return image_folder.write_stand_in(tmp_path_factory.mktemp("images"), train=6, held=3, side=48)


def test_the_stand_in_is_a_folder_of_jpegs_in_imagenets_form(photographs):
    data = image_folder.read_image_folder(photographs, size=32)
    assert (data.train_size, data.test_size, list(data.classes)) == (12, 6, ["building", "flower"])
    with Image.open(data.train[0][0]) as opened:
        assert opened.format == "JPEG" and opened.size == (48, 48)
    images, labels = data.draw(torch.tensor([0, 7, 3]), torch.Generator().manual_seed(0))
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.float32 and labels.tolist() == [0, 1, 0]
    batches = list(data.test_batches(4))
    assert [len(labels) for _, labels in batches] == [4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1, 1, 1]


def test_gray_and_png_images_are_read_as_rgb_and_what_is_no_image_is_refused(tmp_path):
    Image.fromarray(np.full((5, 7), 90, np.uint8)).save(tmp_path / "gray.png")
    pixels = image_files.read_image(tmp_path / "gray.png")
    assert pixels.shape == (3, 5, 7) and pixels.unique().tolist() == [90]
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"(?s)not a JPEG or PNG image.*text\.jpg"):
        image_files.read_image(tmp_path / "text.jpg")
    assert [file.name for file in image_files.image_files(tmp_path)] == ["gray.png", "text.jpg"]


def test_the_middle_of_an_image_is_its_middle():
    """Shorter side 256 of 224, then the middle: of a wide image whose columns are numbered, the columns around its centre."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 1024).astype(np.uint8), (256, 1))).convert("RGB")
    middle = image_folder.middle_part(ramp, 224).float()
    assert middle.shape == (3, 224, 224)
    assert float(middle.mean()) == pytest.approx(127.5, abs=1)  # a gray level is four columns here


def test_a_random_part_shows_pixels_of_the_image_at_the_size_that_was_asked():
    image = Image.fromarray(np.full((20, 90, 3), 77, np.uint8))
    for seed in range(20):
        part = image_folder.random_part(image, 24, torch.Generator().manual_seed(seed))
        assert part.shape == (3, 24, 24) and part.unique().tolist() == [77]


def test_a_folder_in_another_form_is_refused(tmp_path, photographs):
    with pytest.raises(InputError, match="a folder is missing"):
        image_folder.read_image_folder(tmp_path)
    for name in ("train/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"(?s)other classes.*a, b"):
        image_folder.read_image_folder(tmp_path)
    for name in ("train/b", "val/a"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="no images"):
        image_folder.read_image_folder(tmp_path)


def test_a_stand_in_lives_as_long_as_it_is_kept():
    data, keep = image_folder.load_images(None, size=32, smoke=True)
    assert (data.train_size, data.test_size) == (64, 24) and data.train[0][0].exists()
    keep.cleanup()
    assert not data.train[0][0].exists()


# super-resolution


def test_a_pair_is_an_image_and_its_bicubic_reduction():
    image = torch.randint(0, 256, (3, 13, 18), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pair = superres.make_pair(image, 4)
    assert pair.large.shape == (3, 12, 16) and pair.small.shape == (3, 3, 4)
    wanted = Image.fromarray(image[:, :12, :16].permute(1, 2, 0).contiguous().numpy()).resize((4, 3), Image.Resampling.BICUBIC)
    assert np.array_equal(pair.small.permute(1, 2, 0).numpy(), np.array(wanted))


def test_patches_of_both_sizes_show_the_same_place():
    """Of an image that is constant in 2 x 2 squares, the small patch is every second pixel of the large one, however it is turned."""
    small = torch.randint(0, 256, (3, 10, 14), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pair = superres.Pair(small.repeat_interleave(2, 1).repeat_interleave(2, 2), small)
    data = superres.Enlarging([pair], [pair], 2, 5, 30)
    low, high = data.draw(torch.arange(30), torch.Generator().manual_seed(1))
    assert low.shape == (30, 3, 5, 5) and high.shape == (30, 3, 10, 10)
    torch.testing.assert_close(high[..., ::2, ::2], low, rtol=0, atol=0)
    assert len({tuple(patch.flatten().tolist()) for patch in low}) > 20


def test_psnr_by_its_definition():
    wanted = torch.full((1, 3, 8, 8), 0.5)
    found = wanted + 0.1
    luma_step = 0.1 * (65.481 + 128.553 + 24.966) / 255
    # float32 luma of size 0.5 and a difference of 0.086: relative error 1e-5, in dB 1e-4
    assert superres.psnr(found, wanted, border=2) == pytest.approx(-20 * math.log10(luma_step), abs=1e-3)
    edge = wanted.clone()
    edge[..., :2, :] = 1
    assert superres.psnr(edge, wanted, border=2) == 100, "the border does not count, and equal images are at most 100 dB"


class Repeat(nn.Module):
    """Enlarges by repeating pixels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_bicubic_enlargement_beats_repeated_pixels_on_photographs():
    data = superres.load_pairs(None, scale=2, patch=16, patches=4)
    repeated = measure(Repeat(), superres.enlarging_task(data, batch_size=2, seed=0).evaluate)["psnr"]
    assert 20 < repeated < superres.bicubic(data) < 40


def test_the_photographs_are_split_without_overlap():
    train, held = superres.sample_photographs()
    assert [image.shape[2] for image in train] == [480, 480] and [image.shape[2] for image in held] == [160, 160]


def test_a_folder_of_images_is_split_or_taken_as_it_is_split(tmp_path):
    for number in range(11):
        Image.fromarray(np.full((20, 20, 3), number, np.uint8)).save(tmp_path / f"{number:02}.png")
    data = superres.load_pairs(tmp_path, scale=2, patch=8, patches=4)
    assert [int(pair.large[0, 0, 0]) for pair in data.test] == [9] and len(data.train) == 10
    for part, count in (("train", 2), ("test", 1)):
        (tmp_path / "split" / part).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((20, 20, 3), 50, np.uint8)).save(tmp_path / "split" / part / f"{number}.png")
    split = superres.load_pairs(tmp_path / "split", scale=2, patch=8, patches=4)
    assert (len(split.train), len(split.test)) == (2, 1)
    with pytest.raises(InputError, match="smaller than a patch"):
        superres.load_pairs(tmp_path, scale=2, patch=16, patches=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="too few images"):
        superres.load_pairs(tmp_path / "empty", scale=2, patch=8, patches=4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_carn_enlarges_by_its_scale(scale):
    assert carn.CARN(8, scale=scale)(torch.rand(1, 3, 6, 5)).shape == (1, 3, 6 * scale, 5 * scale)


def test_residual_carn_begins_as_bicubic_enlargement():
    data = superres.load_pairs(None, scale=2, patch=16, patches=4)
    found = measure(carn.CARN(4, scale=2, residual=True), superres.enlarging_task(data, batch_size=2, seed=0).evaluate)["psnr"]
    # torch's cubic has a = -0.75 where Pillow's has -0.5, and does not round to 8 bits
    assert found == pytest.approx(superres.bicubic(data), abs=0.5)


def test_carn_has_its_published_size():
    # arXiv:1803.08664, table: 1,592 K parameters, over the three scales that it serves at once; for scale 2 alone, by hand:
    # entry 1,792; 9 blocks of 2 convolutions 36,928 each; mixers of 2, 3, 4 times 64 channels, four times; enlargement 147,712; exit 1,731
    blocks = 18 * (64 * 64 * 9 + 64)
    mixers = 4 * sum(64 * n * 64 + 64 for n in (2, 3, 4))
    by_hand = (3 * 64 * 9 + 64) + blocks + mixers + (64 * 256 * 9 + 256) + (64 * 3 * 9 + 3)
    assert sum(p.numel() for p in carn.CARN(64, scale=2).parameters()) == by_hand
    with pytest.raises(ConfigError, match="2, 3 or 4"):
        carn.CARN(8, scale=5)


# text


def test_texts_are_split_by_file_and_other_files_are_left_alone(tmp_path):
    for number in range(21):
        (tmp_path / f"{number:02}.txt").write_text(f"file {number}")
    (tmp_path / "image.png").write_bytes(b"\x00")
    (tmp_path / "empty.txt").write_text(" \n")
    train, held = text.read_texts(tmp_path)
    assert held == ["file 1", "file 9", "file 19"] and len(train) == 18 and not set(train) & set(held)
    few, _ = text.read_texts(tmp_path, most=20)
    assert len(few) < 18
    with pytest.raises(InputError, match="too little text"):
        text.read_texts(tmp_path / "nowhere")


def test_the_standard_library_is_text_that_every_machine_has():
    train, held = text.standard_library(most=50_000)
    assert sum(map(len, train)) == 50_000 and sum(map(len, held)) == 5_000
    assert not set(train) & set(held) and any("import" in part for part in train)


@pytest.fixture(scope="module")
def tokens():
    train, held = text.standard_library(most=30_000)
    tokenizer = text.train_tokenizer(train, vocabulary=300)
    return tokenizer, text.token_rows(tokenizer, train, held, length=16, most_held=10)


def test_rows_are_the_text_in_order(tokens):
    tokenizer, rows = tokens
    train, held = text.standard_library(most=30_000)
    whole = tokenizer.decode(rows.train.flatten().tolist())
    assert len(whole) > 29_000 and "".join(train).startswith(whole)
    kept = tokenizer.decode(rows.held.flatten().tolist())
    assert rows.held.shape == (10, 16) and held[0].startswith(kept)
    assert rows.held_bytes == len(kept.encode())


def test_a_tokenizer_of_a_text_is_always_the_same():
    """A run that goes on makes its tokenizer again: other ids would be another language."""
    train, _ = text.standard_library(most=60_000)
    first, *others = (text.train_tokenizer(train, vocabulary=400).get_vocab() for _ in range(4))
    assert all(vocabulary == first for vocabulary in others) and len(first) == 400


class Uniform(nn.Module):
    """Every token is as likely as any other."""

    def __init__(self, vocabulary):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, rows):
        return self.logits.expand(*rows.shape, -1)


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary(tokens):
    _, rows = tokens
    found = measure(Uniform(300), text.text_task(rows, batch_size=4, seed=0).evaluate)
    # float32 log of 300, averaged: relative error below 1e-6, times ln 300 in the exponent
    assert found["perplexity"] == pytest.approx(300, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(rows.held[:, 1:].numel() * math.log2(300) / rows.held_bytes, rel=1e-5)


def test_a_text_shorter_than_a_row_and_a_missing_tokenizer_are_refused(tokens, tmp_path):
    tokenizer, _ = tokens
    with pytest.raises(InputError, match="shorter than a row"):
        text.token_rows(tokenizer, ["abc"], ["abc"], length=64)
    with pytest.raises(InputError, match="no tokenizer there"):
        text.read_tokenizer(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert text.read_tokenizer(tmp_path).encode("import os").ids == tokenizer.encode("import os").ids
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        text.read_tokenizer(tmp_path)


@pytest.mark.slow
def test_a_model_saved_by_transformers_is_read_from_its_folder_and_a_pickle_is_not(tmp_path):
    net = hf_nets.phi("tiny", vocabulary=64)
    net.save_pretrained(tmp_path)
    again = hf_nets.from_folder("PhiForCausalLM", tmp_path)
    for (name, a), b in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="no network there"):
        hf_nets.from_folder("PhiForCausalLM", tmp_path)
