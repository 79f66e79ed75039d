"""Logits of the tiny checkpoints against transformers', and the promise that nothing but the tokens changes a bit.

A row's logits depend on the tokens up to it, the model and the instruction set: not on how the prompt is cut into
chunks, on what follows the row, or on the number of threads. Whole prompts, chunks and single tokens all read keys and
values from the paged cache, whose blocks `ModelRunner.logits` scatters over the pool.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanovllm import _core
from reference.safetensors_io import load_checkpoint
from reference.transformer import forward
from runners import INSTRUCTION_SETS, model_runner

GOLDEN = Path(__file__).parent / "golden"
LENGTHS = {"tiny_qwen3": (1, 5, 17, 255, 256, 257, 300), "tiny_llama": (1, 17, 257)}
CASES = [(name, length) for name, lengths in LENGTHS.items() for length in lengths]
THREADS = (1, 2)
KV_CACHE_DTYPES = ("float32", "bfloat16")
CUTS = (1, 7, 255, 256, 257)
"""Chunk boundaries next to the start and around the edge of a cache block."""
STEP_SLICE = 512
"""Rows the engine computes at a time; longer steps are sliced."""

Runners = dict[tuple[str, int, str], _core.ModelRunner]
"""By model, number of threads and type of the KV cache."""


@pytest.fixture(scope="module", params=INSTRUCTION_SETS)
def runners(request: pytest.FixtureRequest) -> Runners:
    """Runners of one instruction set, for every model, number of threads and type of the cache."""
    return {
        (name, threads, dtype): model_runner(
            GOLDEN / name, isa=request.param, num_threads=threads, kv_cache_dtype=dtype, num_kvcache_blocks=8
        )
        for name in LENGTHS
        for threads in THREADS
        for dtype in KV_CACHE_DTYPES
    }


def golden(name: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A prompt and transformers' logits for it."""
    with np.load(GOLDEN / f"{name}_logits.npz") as arrays:
        return arrays[f"ids_{length}"], arrays[f"logits_{length}"]


def chunk_sizes(length: int, cuts: Iterable[int]) -> list[int]:
    """Sizes of the chunks between the cuts that fall inside the prompt."""
    return [end - start for start, end in pairwise([0, *sorted(cut for cut in cuts if 0 < cut < length), length])]


def chunkings(length: int) -> list[list[int]]:
    """Whole, cut at each boundary, at all of them, into equal chunks with a remainder, and token by token."""
    cuts = [(), *((cut,) for cut in CUTS), CUTS, range(0, length, 64), range(length)]
    return [list(sizes) for sizes in dict.fromkeys(tuple(chunk_sizes(length, cut)) for cut in cuts)]


def assert_same_bits(ours: np.ndarray, expected: np.ndarray) -> None:
    differing = np.flatnonzero((ours.view(np.uint32) != expected.view(np.uint32)).any(axis=-1))
    assert len(differing) == 0, f"{len(differing)} of {len(ours)} rows differ, the first is {differing[0]}"


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(("name", "length"), CASES)
def test_logits_agree_with_transformers(runners: Runners, name: str, length: int, threads: int) -> None:
    ids, expected = golden(name, length)
    runner = runners[name, threads, "float32"]
    worst = 0.0
    for sizes in chunkings(length):
        logits = runner.logits(ids, sizes)
        assert logits.shape == expected.shape
        assert logits.dtype == np.float32
        difference = np.abs(logits - expected).max()
        assert difference < 1e-3, f"in chunks of {sizes}"
        worst = max(worst, difference)
    print(f"{name}, {length} tokens, {threads} threads: largest difference {worst:.2e}")


@pytest.mark.parametrize(("name", "length"), CASES)
def test_chunkings_and_threads_give_the_same_bits(runners: Runners, name: str, length: int) -> None:
    ids, _ = golden(name, length)
    for dtype in KV_CACHE_DTYPES:
        expected = runners[name, 1, dtype].logits(ids)
        for threads in THREADS:
            for sizes in chunkings(length):
                assert_same_bits(runners[name, threads, dtype].logits(ids, sizes), expected)


@given(
    name=st.sampled_from(sorted(LENGTHS)),
    threads=st.sampled_from(THREADS),
    dtype=st.sampled_from(KV_CACHE_DTYPES),
    length=st.integers(1, 300),
    cuts=st.sets(st.integers(1, 299), max_size=12),
)
@settings(max_examples=30, deadline=None)
def test_any_chunks_of_any_prefix_give_the_same_bits(
    runners: Runners, name: str, threads: int, dtype: str, length: int, cuts: set[int]
) -> None:
    ids, _ = golden(name, max(LENGTHS[name]))
    prefix = ids[:length]
    expected = runners[name, 1, dtype].logits(ids)[: len(prefix)]
    assert_same_bits(runners[name, threads, dtype].logits(prefix, chunk_sizes(len(prefix), cuts)), expected)


@pytest.mark.parametrize("dtype", KV_CACHE_DTYPES)
def test_slices_of_a_long_step_are_invisible(runners: Runners, dtype: str) -> None:
    ids, _ = golden("tiny_qwen3", 300)
    ids = np.resize(ids, 2 * STEP_SLICE - 1)
    whole = runners["tiny_qwen3", 1, dtype].logits(ids)
    for threads in THREADS:
        for cuts in [(STEP_SLICE - 1, STEP_SLICE), (300, 301)]:
            logits = runners["tiny_qwen3", threads, dtype].logits(ids, chunk_sizes(len(ids), cuts))
            assert_same_bits(logits, whole)
    expected = forward(*load_checkpoint(GOLDEN / "tiny_qwen3"), ids)
    # Keys and values lose 16 of 24 bits in bfloat16.
    assert np.abs(whole - expected).max() < (1e-3 if dtype == "float32" else 0.1)


def test_rows_before_a_changed_token_keep_their_bits(runners: Runners) -> None:
    """Causality, to the bit; the rows after it do change, so the model does read its cache."""
    ids, _ = golden("tiny_qwen3", 300)
    changed = ids.copy()
    changed[256] = (changed[256] + 1) % 320
    runner = runners["tiny_qwen3", 2, "float32"]
    before, after = runner.logits(ids), runner.logits(changed)
    assert_same_bits(after[:256], before[:256])
    assert np.abs(after[256:] - before[256:]).max(axis=-1).min() > 1e-4
