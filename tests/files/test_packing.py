"""Packing is exact, dense and refuses what does not fit."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geta_nb.errors import ArtifactError, BitWidthError
from geta_nb.files import packing
from geta_nb.files.packing import largest_code, pack, packed_bytes, unpack


@st.composite
def codes_of_a_width(draw: st.DrawFn) -> tuple[int, np.ndarray]:
    bits = draw(st.integers(1, 16))
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    values = draw(st.lists(st.integers(low, high), max_size=70))
    return bits, np.array(values, dtype=draw(st.sampled_from([np.int16, np.int32, np.int64])))


def by_hand(codes: list[int], bits: int) -> list[int]:
    """The layout as the module's docstring says it, one Python integer for the whole stream."""
    stream = sum((code % (1 << bits)) << (index * bits) for index, code in enumerate(codes))
    return list(stream.to_bytes((len(codes) * bits + 7) // 8, "little"))


@given(codes_of_a_width())
def test_every_width_and_length_round_trips_exactly(case: tuple[int, np.ndarray]) -> None:
    bits, codes = case
    stream = pack(codes, bits)
    assert stream.dtype == np.uint8
    assert stream.size == packed_bytes(codes.size, bits) == -(-codes.size * bits // 8)
    np.testing.assert_array_equal(unpack(stream, bits, codes.size), codes)


@given(codes_of_a_width())
def test_the_stream_is_the_documented_layout(case: tuple[int, np.ndarray]) -> None:
    bits, codes = case
    assert pack(codes, bits).tolist() == by_hand(codes.tolist(), bits)


@pytest.mark.parametrize("bits", range(1, 17))
def test_blocks_join_without_a_seam(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_BLOCK", 8)
    generator = np.random.default_rng(bits)
    codes = generator.integers(-(1 << (bits - 1)), 1 << (bits - 1), size=61)
    stream = pack(codes, bits)
    assert stream.tolist() == by_hand(codes.tolist(), bits)
    np.testing.assert_array_equal(unpack(stream, bits, 61), codes)


def test_symmetric_range_is_one_short_of_the_twos_complement() -> None:
    assert [largest_code(bits) for bits in (1, 2, 3, 8, 16)] == [0, 1, 3, 127, 32767]


@pytest.mark.parametrize("bits", range(1, 17))
def test_the_lowest_code_of_each_width_is_packed_too(bits: int) -> None:
    codes = np.array([-(2 ** (bits - 1)), 0, -(2 ** (bits - 1)), largest_code(bits), -(2 ** (bits - 1))])
    np.testing.assert_array_equal(unpack(pack(codes, bits), bits, 5), codes)


def test_memory_beyond_input_and_output_does_not_grow_with_the_tensor() -> None:
    def peak(count: int) -> int:
        codes = np.zeros(count, dtype=np.int16)
        tracemalloc.start()
        unpack(pack(codes, 15), 15, count)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    blocks = packing._BLOCK
    # Per extra code: 15/8 bytes of stream + 2 bytes of result; 5 leaves slack for the bookkeeping of the interpreter.
    assert peak(6 * blocks) - peak(2 * blocks) < 5 * 4 * blocks


@pytest.mark.parametrize("bits", [-1, 0, 17])
def test_no_other_width_exists(bits: int) -> None:
    with pytest.raises(BitWidthError, match="1 <= bits <= 16"):
        pack([0], bits)
    with pytest.raises(BitWidthError, match="1 <= bits <= 16"):
        unpack(np.zeros(1, dtype=np.uint8), bits, 1)


@pytest.mark.parametrize("code", [-5, 4])
def test_a_code_that_does_not_fit_is_refused(code: int) -> None:
    with pytest.raises(ArtifactError, match="does not fit"):
        pack([0, code], 3)


def test_a_float_code_is_refused() -> None:
    with pytest.raises(ArtifactError, match="must be integers"):
        pack([0.5], 3)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_stream_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ArtifactError, match="wrong length"):
        unpack(np.zeros(size, dtype=np.uint8), 5, 3)


def test_set_padding_bits_are_refused() -> None:
    with pytest.raises(ArtifactError, match="after the last code"):
        unpack(np.array([0, 128], dtype=np.uint8), 5, 3)
