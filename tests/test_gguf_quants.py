"""Tensor types of GGUF: bit for bit as the PyPI package `gguf` reads them, as exact as ggml writes them."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.quant_rows import all_rows, nmse
from nanovllm import _core
from tensor_types import IN_BLOCKS, KNOWN_BY_PACKAGE, NUMBERS, READ_BY_PACKAGE, TYPES, WRITTEN, WRITTEN_BY_PACKAGE
from tools import make_codebooks

GOLDEN = Path(__file__).parent / "golden"
WRITTEN_IN_BLOCKS = [name for name in WRITTEN if name in IN_BLOCKS]
IMPROVED = {"IQ4_NL", "MXFP4"}
"""Types that are written with smaller errors than ggml's, as a claim; of all others, ggml's very bytes are written."""
READ_HERE = {
    "Q8_1": [("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)],
    "Q8_K": [("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)],
}
"""Types of activations, which the package does not read: the fields of a block. A value is its code `qs` times `d`."""

HALVES = [0x7C00, 0xFC00, 0x7E00, 0xFFFF, 0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF]
"""Bits of float16 numbers: infinities, NaNs, zeros, the smallest and largest subnormal, and the largest numbers."""


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Every bit alike, but for NaN, which equals NaN."""
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
    assert same.all(), f"element {np.argmin(same)}: {ours[~same][:4]} and not {theirs[~same][:4]}"


def package_reads(name: str, blocks: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(blocks, GGMLQuantizationType[name]).ravel()


@st.composite
def blocks_of(draw: st.DrawFn, name: str) -> np.ndarray:
    """Arbitrary blocks, some with special halves (infinite, NaN, zero, subnormal, largest) where scales may lie."""
    size = TYPES[name][2]
    blocks = np.frombuffer(draw(st.binary(min_size=8 * size, max_size=8 * size)), np.uint8).reshape(8, size).copy()
    blocks[4:] = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, (4, size))
    places = st.tuples(st.integers(0, 7), st.sampled_from([0, 2, -4, -2]), st.sampled_from(HALVES))
    for block, at, half in draw(st.lists(places, max_size=6)):
        if size >= 4:
            blocks[block, at % size : at % size + 2] = half & 0xFF, half >> 8
    return blocks


def test_numbers_and_sizes_are_the_packages() -> None:
    assert len(TYPES) == len({number for number, *_ in TYPES.values()})
    for name in KNOWN_BY_PACKAGE:
        number, block, size, _ = TYPES[name]
        kind = GGMLQuantizationType[name]
        assert kind == number
        if name != "Q8_1":  # which the package gives float32 scales, and never uses
            assert gguf.GGML_QUANT_SIZES[kind] == (block, size), name


def test_types_of_the_package_are_there() -> None:
    """All but the newest, which docs/quantisation.md names as refused."""
    assert {kind.name for kind in gguf.GGML_QUANT_SIZES} - set(TYPES) <= {"NVFP4", "Q1_0", "Q2_0"}


def test_codebooks_are_the_packages() -> None:
    for name in make_codebooks.NAMES:
        assert (make_codebooks.CODEBOOKS / f"{name.lower()}.bin").read_bytes() == make_codebooks.bitmap(name), name


@pytest.mark.parametrize("name", READ_BY_PACKAGE)
def test_many_blocks_are_read_as_the_package_reads_them(name: str) -> None:
    # 1000 blocks meet every point of every codebook and, one in 16, a scale that is infinite or NaN.
    blocks = np.random.default_rng(TYPES[name][0]).integers(0, 256, (1000, TYPES[name][2]), np.uint8)
    assert_same_bits(_core.dequantize(name, blocks), package_reads(name, blocks))


@pytest.mark.parametrize("name", READ_BY_PACKAGE)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_blocks_are_read_as_the_package_reads_them(name: str, data: st.DataObject) -> None:
    blocks = data.draw(blocks_of(name))
    assert_same_bits(_core.dequantize(name, blocks), package_reads(name, blocks))


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(min_size=4 * 292, max_size=4 * 292))
def test_types_the_package_cannot_read(raw: bytes) -> None:
    with np.errstate(all="ignore"):
        for name, dtype in NUMBERS.items():
            values = np.frombuffer(raw, dtype).astype(np.float32)
            assert_same_bits(_core.dequantize(name, raw), values)
        for name, fields in READ_HERE.items():
            blocks = np.frombuffer(raw[: 4 * TYPES[name][2]], np.dtype(fields))
            values = blocks["d"].astype(np.float32)[:, None] * blocks["qs"].astype(np.float32)
            assert_same_bits(_core.dequantize(name, blocks.tobytes()), values.ravel())


def test_every_type_is_read_independently_too() -> None:
    assert {*READ_BY_PACKAGE, *NUMBERS, *READ_HERE} == set(TYPES)


@pytest.mark.parametrize("name", WRITTEN_IN_BLOCKS)
def test_error_is_at_most_ggmls(name: str) -> None:
    golden = json.loads((GOLDEN / "quant_ggml.json").read_text())[name]
    for kind, rows in all_rows().items():
        theirs, checksum = golden[kind]
        blocks = _core.quantize(name, rows)
        ours = nmse(rows, _core.dequantize(name, blocks))
        assert ours <= 1.02 * theirs, kind
        if name not in IMPROVED:
            assert zlib.crc32(blocks) == checksum, kind


def test_error_is_less_than_ggmls_where_that_is_claimed() -> None:
    golden = json.loads((GOLDEN / "quant_ggml.json").read_text())
    for name in IMPROVED:
        rows = all_rows()
        ratios = [
            nmse(rows[kind], _core.dequantize(name, _core.quantize(name, rows[kind]))) / golden[name][kind][0]
            for kind in ("normal", "uniform", "heavy_tailed", "outliers", "real")
        ]
        assert all(ratio < 1 for ratio in ratios), (name, ratios)


@pytest.mark.parametrize("name", [name for name in WRITTEN_BY_PACKAGE if name not in IMPROVED])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), exponent=st.integers(-12, 8), sparse=st.booleans())
def test_blocks_are_the_packages(name: str, seed: int, exponent: int, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((2, 256)) * 2.0**exponent).astype(np.float32)
    rows[0, : 128 * sparse] = 0
    with np.errstate(all="ignore"):  # the package divides zero by zero
        theirs = gguf.quants.quantize(rows, GGMLQuantizationType[name])
    assert _core.quantize(name, rows).tobytes() == theirs.tobytes()


LOSS = {"F32": 0, "F64": 0, "F16": 2**-11, "BF16": 2**-8, "TQ1_0": 1 / 2, "TQ2_0": 1 / 2}
LOSS |= {"Q4_0": 1 / 8, "Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31, "Q5_K": 1 / 6}
LOSS |= {"Q8_0": 1 / 254, "Q8_1": 1 / 254, "Q8_K": 1 / 254}
"""What an element may lose, as a share of the largest magnitude in its block: worked out from the format by hand.

A type that is not listed may lose what codes of two bits fewer than it stores for an element would."""


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    number = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([0.0, 1.0, -1.0, 0.5]))
    values = data.draw(st.lists(number, min_size=1, max_size=40))
    scale = 2.0 ** data.draw(st.integers(-4, 4))
    rows = (np.resize(np.array(values, np.float32), (2, 256)) * np.float32(scale)).astype(np.float32)
    blocks = _core.quantize(name, rows)
    _, block, size, _ = TYPES[name]
    assert blocks.size == rows.size // block * size
    back = _core.dequantize(name, blocks).reshape(rows.shape)
    largest = np.abs(rows.reshape(-1, block)).max(-1, keepdims=True)
    error = np.abs(rows - back).reshape(-1, block)
    # A number of half precision is a multiple of 2**-24, and rounds by half of that. As a scale it is multiplied by
    # codes of up to 128 and, in blocks of 256, also by another scale of up to 32.
    multiplier = 1 if block == 1 else 2**8 if block < 256 else 2**13
    underflow = 2.0**-25 * multiplier if name not in {"F32", "F64"} else 0
    loss = LOSS.get(name, 2.0 ** (2 - 8 * size // block))
    assert (error <= 1.01 * loss * largest + underflow).all()


@pytest.mark.parametrize("name", WRITTEN)
def test_an_element_depends_on_its_block_alone(name: str) -> None:
    rows = all_rows()["outliers"][:4]
    one_by_one = b"".join(_core.quantize(name, row).tobytes() for row in rows)
    assert _core.quantize(name, rows).tobytes() == one_by_one


def test_buffers() -> None:
    rows = all_rows()["normal"][:2]
    blocks = _core.quantize("Q4_K", rows)
    assert blocks.dtype == np.uint8
    expected = _core.dequantize("Q4_K", blocks)
    for data in (blocks.tobytes(), bytearray(blocks), memoryview(blocks.tobytes()), blocks.reshape(2, -1)):
        assert_same_bits(_core.dequantize("Q4_K", data), expected)
    assert _core.dequantize("Q4_K", np.empty(0, np.uint8)).shape == (0,)
    assert _core.quantize("Q4_K", np.empty(0, np.float32)).shape == (0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", WRITTEN_IN_BLOCKS)
def test_values_no_block_can_hold(name: str, bad: float) -> None:
    rows = np.ones(512, np.float32)
    rows[300] = bad
    with pytest.raises(ValueError, match=f"{name}.*block {300 // TYPES[name][1]}"):
        _core.quantize(name, rows)


def test_arguments() -> None:
    with pytest.raises(ValueError, match='"Q4_9" is no tensor type; the types are F32, F16, Q4_0'):
        _core.dequantize("Q4_9", b"")
    with pytest.raises(ValueError, match='"q4_0" is no tensor type'):
        _core.quantize("q4_0", np.zeros(32, np.float32))
    with pytest.raises(ValueError, match="quantisation is not supported for tensors of type IQ2_XS"):
        _core.quantize("IQ2_XS", np.zeros(256, np.float32))
    with pytest.raises(ValueError, match="Q6_K"):
        _core.dequantize("Q6_K", bytes(209))
    with pytest.raises(ValueError, match=r"Q6_K.*multiple of 256"):
        _core.quantize("Q6_K", np.zeros(128, np.float32))
    with pytest.raises(TypeError, match="values must be an array of float32, not an array of float64"):
        _core.quantize("Q8_0", np.zeros(32))
    with pytest.raises(TypeError, match="values must be an array of float32, not list"):
        _core.quantize("Q8_0", [0.0] * 32)
    with pytest.raises(TypeError, match="data must be an array of uint8, not an array of int8"):
        _core.dequantize("Q8_0", np.zeros(34, np.int8))
    with pytest.raises(TypeError, match="a bytes-like object is required"):
        _core.dequantize("Q8_0", 34)
    with pytest.raises(ValueError, match="data must be contiguous"):
        _core.dequantize("Q8_0", memoryview(bytes(68))[::2])
    with pytest.raises(ValueError, match="values must be contiguous"):
        _core.quantize("Q8_0", np.zeros(64, np.float32)[::2])
