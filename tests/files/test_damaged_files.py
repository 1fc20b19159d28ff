"""A file that is not what it should be is refused, whoever broke it and wherever."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

import geta_nb
from geta_nb.errors import ArtifactError
from geta_nb.files import container
from geta_nb.files import save_load as export
from geta_nb.files.save_load import load, save
from geta_nb.subnet.graph_net import GraphNet
from tests.files.nets import add_activation_quantizers, assert_same_tensors, conv_net, graph_subnet, image


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)cannot be read.*ghost.*FileNotFoundError"):
        load(tmp_path / "ghost")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(tmp_path)


OTHERS = [b"", b"x", b"\0" * 8, b"\xff" * 64, b"PK\x03\x04" + b"a" * 99, b"\2" + b"\0" * 7 + b"[]", b"\4" + b"\0" * 7 + b"nope"]


@pytest.mark.parametrize("content", OTHERS)
def test_a_file_of_another_format_says_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"geta_nb\.save"):
        load(tmp_path / "x")


def test_a_table_nested_without_end_is_refused(tmp_path: Path) -> None:
    text = b"[" * 200_000
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ArtifactError, match="damaged"):
        load(tmp_path / "x")


def test_a_safetensors_file_of_others_says_so(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3)}, tmp_path / "x")
    with pytest.raises(ArtifactError, match="not one that geta-nb saved"):
        load(tmp_path / "x")


def test_any_flipped_byte_is_noticed(saved: Path) -> None:
    content, generator = bytearray(saved.read_bytes()), random.Random(0)
    spots = [generator.randrange(len(content)) for _ in range(170)] + list(range(30))
    tracemalloc.start()
    for spot in spots:
        flip = generator.randrange(1, 256)
        content[spot] ^= flip
        saved.write_bytes(content)
        with pytest.raises(ArtifactError):
            load(saved)
        content[spot] ^= flip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * len(content) + 500_000, "a broken file made a big allocation"
    saved.write_bytes(content)
    load(saved)


def test_any_truncated_or_longer_file_is_noticed(saved: Path) -> None:
    content, generator = saved.read_bytes(), random.Random(1)
    for size in [*(generator.randrange(len(content)) for _ in range(60)), *range(12), len(content) - 1]:
        saved.write_bytes(content[:size])
        with pytest.raises(ArtifactError):
            load(saved)
    saved.write_bytes(content + b"\0")
    with pytest.raises(ArtifactError):
        load(saved)


def squeezed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def reseal(path: Path, *, network: Any = None, text: str | None = None, metadata: dict[str, str] | None = None, table: Any = None) -> None:
    """Write the file again as a forger would: something changed, and the seal right again."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    rows = json.loads(content[8:start])
    header = json.loads(zlib.decompress(base64.b64decode(rows["__metadata__"]["network"])))
    if network:
        network(header)
        text = squeezed(json.dumps(header).encode())
    if text is not None:
        rows["__metadata__"]["network"] = text
    rows["__metadata__"] |= (metadata or {}) | {"sha256": "0" * 64}
    if table:
        table(rows)
    head = json.dumps(rows, separators=(",", ":")).encode()
    content = len(head).to_bytes(8, "little") + head + content[start:]
    seal = re.search(rb'"sha256":"(0{64})"', content)
    assert seal is not None
    digest = container._digest(content, seal.start(1)).encode()
    path.write_bytes(content[: seal.start(1)] + digest + content[seal.end(1) :])


def row(header: dict[str, Any], name: str) -> list[Any]:
    return next(row for row in header["tensors"] if row[0] == name)


def test_a_resealed_file_loads_so_the_forgeries_below_reach_their_check(saved: Path, subnet: GraphNet) -> None:
    reseal(saved, network=lambda header: None)
    assert_same_tensors(subnet, load(saved))


def test_another_version_says_so(saved: Path) -> None:
    reseal(saved, metadata={"version": "4"})
    with pytest.raises(ArtifactError, match=r"(?s)version '1' or '2' or '3'.*version '4'.*pip install -U"):
        load(saved)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_earlier_version_still_loads_and_its_codes_are_symmetric(version: int, saved: Path, subnet: GraphNet) -> None:
    def change(header: dict[str, Any]) -> None:
        # the first said nothing of a sign, the second nothing of the lowest code
        header["quantizers"] = {path: values[: version + 1] for path, values in header["quantizers"].items()}

    add_activation_quantizers(subnet, signed=version == 1)
    save(subnet, saved)
    reseal(saved, network=change, metadata={"version": str(version)})
    again = load(saved)
    assert_same_tensors(subnet, again)
    assert again.get_submodule("head.input_quantizer").kind == (version == 1, True)
    assert all(form.narrow_range for form in again.geta_info.formats.values())


def test_an_unknown_operator_is_named(saved: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        next(node for node in header["program"]["nodes"] if node[1] == "aten.relu.default")[1] = "aten.relu9.default"

    reseal(saved, network=change)
    with pytest.raises(ArtifactError, match=r"(?s)unknown here.*aten\.relu9\.default.*newer"):
        load(saved)


ABSURD = [[10**12, 10**12], [2**62], [-8, 27], [1.5], "8", None, [8] * 70, [8, 3, 3, 4], [0, 2**62], [True, 3, 3, 3]]


@pytest.mark.parametrize("shape", ABSURD)
def test_an_absurd_shape_is_refused_before_anything_is_allocated(shape: Any, saved: Path) -> None:
    for name in ("stem.weight", "head.bias"):
        content = saved.read_bytes()
        reseal(saved, network=lambda header, name=name: row(header, name).__setitem__(3, shape))
        tracemalloc.start()
        with pytest.raises(ArtifactError):
            load(saved)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()
        saved.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: row(header, "stem.weight")[4].update(bits=5),
        lambda header: row(header, "stem.weight")[4].update(bits=0),
        lambda header: row(header, "stem.weight")[4].update(bits=10**9),
        lambda header: row(header, "stem.weight")[4].update(bits="4"),
        lambda header: row(header, "stem.weight")[4].update(bits=4.0),
        lambda header: row(header, "stem.weight")[4].update(step="nan"),
        lambda header: row(header, "stem.weight")[4].update(step="-0x1p+0"),
        lambda header: row(header, "stem.weight")[4].update(step="0x1p+99999"),
        lambda header: row(header, "stem.weight")[4].update(order=[0, 0, 1, 2]),
        lambda header: row(header, "stem.weight")[4].update(order="abcd"),
        lambda header: row(header, "stem.weight")[4].pop("bits"),
        lambda header: row(header, "stem.weight").__setitem__(2, "int64"),
        lambda header: row(header, "stem.weight").__setitem__(2, "float99"),
        lambda header: row(header, "stem.weight").__setitem__(1, "module"),
        lambda header: row(header, "stem.weight").__setitem__(0, "forward"),
        lambda header: row(header, "norm.num_batches_tracked").__setitem__(2, "float64"),
        lambda header: header["tensors"].append(row(header, "stem.weight")),
        lambda header: header["tensors"].append(["alias", "parameter", "ghost"]),
        lambda header: header["tensors"].append([]),
        lambda header: header["tensors"].append(7),
        lambda header: header["tensors"].pop(),
        lambda header: header.update(tensors=None),
        lambda header: header.update(formats={"ghost": [4, "0x1p+0", "0x1p+0", "0x1p+0"]}),
        lambda header: header.update(formats={"stem.weight": [4, "0x1p+0", "0x1p+0"]}),
        lambda header: header.update(formats={"stem.weight": ["4", "0x1p+0", "0x1p+0", "0x1p+0"]}),
        lambda header: header.update(formats=[1]),
        lambda header: header.update(quantizers={"stem": ["0x1p+3", "stem"]}),
        lambda header: header.update(quantizers={"stem": 3}),
        lambda header: header.pop("program"),
        lambda header: header.pop("activations"),
        lambda header: header["program"]["nodes"].insert(0, ["call_module", "norm", [], {}]),
        lambda header: header["program"]["nodes"].insert(0, ["get_attr", "forward", [], {}]),
        lambda header: header["program"]["nodes"].insert(0, ["call_function", "operator.add", [], {}]),
    ],
)
def test_a_forged_header_is_an_artifact_error(change: Any, saved: Path) -> None:
    reseal(saved, network=change)
    with pytest.raises(ArtifactError):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows["stem.weight"].update(shape=[10**15]),
        lambda rows: rows["stem.weight"].update(dtype="F99"),
        lambda rows: rows["stem.weight"].update(data_offsets=[0, 10**15]),
        lambda rows: rows["stem.weight"].update(data_offsets=[-8, 100]),
        lambda rows: rows["stem.weight"].update(data_offsets=7),
        lambda rows: rows.update({"stem.weight": None}),
        lambda rows: rows.pop("body.0.weight"),
        lambda rows: rows.pop("norm.num_batches_tracked"),
        lambda rows: rows.update({"more": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}),
        lambda rows: rows["stem.weight"].update(sha256="0" * 64),
    ],
)
def test_a_forged_table_is_an_artifact_error(change: Any, saved: Path) -> None:
    reseal(saved, table=change)
    with pytest.raises(ArtifactError):
        load(saved)


@pytest.fixture
def by_channel(tmp_path: Path) -> Path:
    """The file of a small net with a step a channel and an unsigned input."""
    net = graph_subnet(conv_net(), (image(),), axis=0)
    add_activation_quantizers(net, signed=False)
    return save(net, tmp_path / "channels.safetensors")


def _number(path: Path, position: int, value: float) -> None:
    """Overwrite one of the numbers of channels, and seal the file again."""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    begin, _ = json.loads(content[8:start])[".numbers"]["data_offsets"]
    content[start + begin + 4 * position : start + begin + 4 * position + 4] = struct.pack("<f", value)
    path.write_bytes(content)
    reseal(path)


@pytest.mark.parametrize("position", [0, 12, -1])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_or_clip_value_that_makes_no_sense_is_refused(value: float, position: int, by_channel: Path) -> None:
    count = sum(2 * form.channels for form in load(by_channel).geta_info.formats.values())
    _number(by_channel, position % count, value)
    with pytest.raises(ArtifactError, match="makes no sense"):
        load(by_channel)


def test_another_step_is_another_weight_so_the_checks_above_reach_theirs(by_channel: Path) -> None:
    before = load(by_channel)
    _number(by_channel, 0, 0.5)
    after = load(by_channel)
    first, second = (net.get_parameter("stem.weight").detach() for net in (before, after))
    assert after.geta_info.formats["stem.weight"].step_size[0] == 0.5
    assert not torch.equal(first[0], second[0]) and torch.equal(first[1:], second[1:])


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["formats"]["stem.weight"].__setitem__(1, -1),
        lambda header: header["formats"]["stem.weight"].__setitem__(1, 10**9),
        lambda header: header["formats"]["stem.weight"].__setitem__(1, 0.0),
        lambda header: header["formats"]["stem.weight"].__setitem__(1, True),
        lambda header: header["formats"]["stem.weight"].__setitem__(1, "0x1p+0"),
        lambda header: header["formats"]["stem.weight"].__setitem__(2, 7),
        lambda header: header["formats"]["stem.weight"].__setitem__(2, 9),
        lambda header: header["formats"]["stem.weight"].__setitem__(2, 0),
        lambda header: header["formats"]["stem.weight"].__setitem__(2, 2**70),
        lambda header: header["formats"]["stem.weight"].__setitem__(2, None),
        lambda header: header["formats"]["stem.weight"].__setitem__(3, "nan"),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 1}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 4}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": -4}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": "0"}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 0, "signed": 2}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 0, "scale": 2}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 0, "narrow": 2}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 0, "narrow": None}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 0, "narrow": False}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, {"axis": 0, "narrow": [0]}),
        lambda header: header["formats"]["stem.weight"].__setitem__(4, [0]),
        lambda header: header["formats"]["stem.weight"].pop(),
        lambda header: header["formats"]["stem.weight"].append({}),
        lambda header: header["formats"]["stem.weight"].__setitem__(0, 5),
        lambda header: header["formats"].pop("stem.weight"),
        lambda header: header["formats"].pop("head.weight"),
        lambda header: header["formats"].update({"head.weight": [4, "0x1p+0", "0x1p+0", "0x1p+0"]}),
        lambda header: row(header, "stem.weight")[4].update(step="0x1p+0"),
        lambda header: row(header, "stem.weight")[4].update(format="ghost"),
        lambda header: row(header, "stem.weight")[4].update(format=["stem.weight"]),
        lambda header: row(header, "stem.weight")[4].update(format="head.weight"),
        lambda header: row(header, "stem.weight")[4].update(bits=3),
        lambda header: header["quantizers"]["head.input_quantizer"].__setitem__(2, 2),
        lambda header: header["quantizers"]["head.input_quantizer"].__setitem__(2, "0"),
        lambda header: header["quantizers"]["head.input_quantizer"].__setitem__(3, 2),
        lambda header: header["quantizers"]["head.input_quantizer"].__setitem__(3, None),
        lambda header: header["quantizers"]["head.input_quantizer"].__setitem__(3, [0]),
        lambda header: header["quantizers"]["head.input_quantizer"].append(0),
    ],
)
def test_forged_channels_are_an_artifact_error(change: Any, by_channel: Path) -> None:
    reseal(by_channel, network=change)
    with pytest.raises(ArtifactError):
        load(by_channel)


def test_a_header_cannot_make_more_numbers_than_a_file_has(by_channel: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        bits, _, _, exponent, axis = header["formats"]["stem.weight"]
        header["activations"] = {f"a{i}": [bits, i, 8, exponent, axis] for i in range(20)}

    reseal(by_channel, network=change)
    with pytest.raises(ArtifactError, match="do not name the numbers"):
        load(by_channel)


@pytest.mark.parametrize("dtype", ["U8", "I32", "F64"])
def test_numbers_of_channels_of_another_type_are_refused(dtype: str, by_channel: Path) -> None:
    def change(rows: dict[str, Any]) -> None:
        begin, end = rows[".numbers"]["data_offsets"]
        rows[".numbers"].update(dtype=dtype, shape=[(end - begin) // container.ITEM_BYTES[dtype]])

    reseal(by_channel, table=change)
    with pytest.raises(ArtifactError):
        load(by_channel)


@pytest.mark.parametrize("text", ["", "?", "AAAA", squeezed(b"[1]"), squeezed(b"{"), squeezed(b"{}")[:-4]])
def test_a_header_that_is_no_compressed_json_is_an_artifact_error(text: str, saved: Path) -> None:
    reseal(saved, text=text)
    with pytest.raises(ArtifactError, match="header is damaged"):
        load(saved)


def test_a_decompression_bomb_is_refused_at_the_limit(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_LARGEST_PROGRAM", 100_000)
    reseal(saved, text=squeezed(b'"' + b" " * 50_000_000 + b'"'))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="too large"):
        load(saved)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_nothing_of_a_file_is_ever_unpickled() -> None:
    folder = Path(geta_nb.__file__).parent
    own = [f"files/{name}" for name in ("save_load", "formats", "tensor_table", "container", "packing")]
    for name in (*own, "graph/program", "graph/records", "subnet/graph_net"):
        source = (folder / f"{name}.py").read_text()
        unsafe = r"^\s*(import|from) (pickle|dill|marshal|shelve)|torch\.load\(|(?<![.\w])(eval|exec)\("
        assert not re.search(unsafe, source, re.MULTILINE), name


def test_a_fuzzed_file_is_refused_or_is_the_same_network(saved: Path, subnet: GraphNet) -> None:
    """Bytes flipped, cut out, put in, moved and resealed: an ArtifactError or the network, and never a large allocation."""
    content, generator = saved.read_bytes(), random.Random(2)
    expected = subnet(image())
    tracemalloc.start()
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(generator.randrange(1, 4)):
            start = generator.randrange(len(damaged))
            stop = min(len(damaged), start + generator.randrange(1, 40))
            action = generator.randrange(3)
            if action == 0:
                damaged[start:stop] = generator.randbytes(stop - start)
            elif action == 1:
                del damaged[start:stop]
            else:
                damaged[start:start] = generator.randbytes(stop - start)
        seal = container._SEAL.search(damaged)
        if seal is not None and generator.random() < 0.7:  # past the hash, to the checks behind it
            damaged[seal.start(1) : seal.end(1)] = container._digest(bytes(damaged), seal.start(1)).encode()
        saved.write_bytes(damaged)
        try:
            again = load(saved)
        except ArtifactError:
            continue
        assert again(image()).shape == expected.shape
    assert tracemalloc.get_traced_memory()[1] < 60 * len(content) + 2_000_000
    tracemalloc.stop()
