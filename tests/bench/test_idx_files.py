"""IDX files: read as they claim, refused by name where they do not hold what they say."""

from __future__ import annotations

import gzip

import pytest
import torch

from geta_nb.bench import idx_files
from geta_nb.errors import InputError


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("shape", [(0,), (5,), (3, 4, 2)])
def test_what_is_written_is_read_back(tmp_path, shape, ending):
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    idx_files.write_idx(tmp_path / f"x{ending}", values)
    assert torch.equal(idx_files.read_idx(tmp_path / f"x{ending}", axes=len(shape)), values)


def test_bytes_by_hand_are_read_last_axis_first(tmp_path):
    (tmp_path / "x").write_bytes(bytes((0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6)))
    assert idx_files.read_idx(tmp_path / "x", axes=2).tolist() == [[1, 2, 3], [4, 5, 6]]


WHOLE = bytes((0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9))
PACKED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x", b"", "not such a file"),
        ("x", WHOLE[:6], "not such a file"),
        ("x", b"PK" + WHOLE[2:], "not such a file"),
        ("x", bytes((0, 0, 13)) + WHOLE[3:], "not such a file"),  # floats
        ("x", bytes((0, 0, 8, 3)) + bytes(12), "not such a file"),  # images where labels are wanted
        ("x", WHOLE[:-1], r"cut short or too long(?s:.*)8 \+ 3 bytes(?s:.*)10 bytes"),
        ("x", WHOLE + b"x", "cut short or too long"),
        ("x.gz", WHOLE, "cannot be unpacked"),
        ("x.gz", PACKED[:-6], "cannot be unpacked"),
        ("x.gz", PACKED[:-8] + bytes(8), "cannot be unpacked"),  # its checksum
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        idx_files.read_idx(tmp_path / name, axes=1)
    assert caught.value.at == tmp_path / name
