"""`layers/embed_head.py`: the vocabulary's part of each rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.layers.embed_head import ParallelLMHead, VocabParallelEmbedding
from nanovllm.utils import context
from parity import counts
from parity.arrays import DEVICES, FLOAT32, Rng, check, dtypes, energy, nmse, normal, rngs
from parity.fixture import Reference


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    yield
    context.reset_context()


tp_sizes = st.sampled_from([1, 2, 4, 8])
parts = st.integers(1, 30)
widths = st.integers(1, 70)


def make(
    kind: type[VocabParallelEmbedding], stored: np.ndarray, rank: int, tp_size: int, device: str = "cpu"
) -> VocabParallelEmbedding:
    layer = kind(*stored.shape, tp_rank=rank, tp_size=tp_size, device=device)
    layer.weight.weight_loader(layer.weight, stored)
    return layer


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, tp_size=tp_sizes, part=parts, width=widths)
def test_embedding(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, tp_size: int, part: int, width: int
) -> None:
    rank, dtype = data.draw(st.integers(0, tp_size - 1)), data.draw(dtypes(reference))
    stored = normal(rng, (tp_size * part, width), dtype)
    layer = make(VocabParallelEmbedding, stored, rank, tp_size, device)
    assert (layer.num_embeddings, layer.num_embeddings_per_partition) == (tp_size * part, part)
    assert (layer.vocab_start_idx, layer.vocab_end_idx) == (rank * part, (rank + 1) * part)
    np.testing.assert_array_equal(layer.weight.data, stored[rank * part : (rank + 1) * part])
    ids = rng.integers(0, tp_size * part, data.draw(st.integers(1, 20)))
    got = layer(ids)
    expected = reference.embed_head.embedding(ids, stored, rank, tp_size)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(layer(ids.reshape(1, -1, 1)), expected[None, :, None])


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, tp_size=tp_sizes, part=parts, width=widths)
def test_logits(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, tp_size: int, part: int, width: int
) -> None:
    rank, dtype = data.draw(st.integers(0, tp_size - 1)), data.draw(dtypes(reference))
    stored = normal(rng, (tp_size * part, width), dtype)
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    x = normal(rng, (sum(lengths), width), dtype)
    is_prefill = data.draw(st.booleans())
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    context.set_context(is_prefill, offsets if is_prefill else None)
    got = make(ParallelLMHead, stored, rank, tp_size, device)(x)
    expected = reference.embed_head.logits(x, stored, rank, tp_size, offsets if is_prefill else None)
    rows = x[offsets[1:] - 1] if is_prefill else x
    check(reference, "linear", got, expected, energy(rows, np.split(stored, tp_size)[rank]))


@counts.examples(0.3)
@given(rng=rngs, tp_size=tp_sizes, part=parts, width=widths)
def test_ranks_make_up_the_whole_vocabulary(rng: Rng, tp_size: int, part: int, width: int) -> None:
    stored = normal(rng, (tp_size * part, width), FLOAT32)
    ids = rng.integers(0, len(stored), 9)
    embedded = sum(make(VocabParallelEmbedding, stored, rank, tp_size)(ids) for rank in range(tp_size))
    np.testing.assert_array_equal(embedded, stored[ids])
    x = normal(rng, (3, width), FLOAT32)
    logits = np.concatenate([make(ParallelLMHead, stored, rank, tp_size)(x) for rank in range(tp_size)], axis=-1)
    assert nmse(logits, x.astype(np.float64) @ stored.T) < 1e-9


def test_refusals() -> None:
    with pytest.raises(ValueError, match="10 is not divisible by 4"):
        VocabParallelEmbedding(10, 4, tp_size=4)
    with pytest.raises(ValueError, match="ParallelLMHead has no bias"):
        ParallelLMHead(8, 4, bias=True)
    with pytest.raises(ValueError, match="device must be"):
        VocabParallelEmbedding(8, 4, device="abacus")
    weight = np.zeros((8, 4), np.float32)
    embedding = make(VocabParallelEmbedding, weight, 1, 2)
    with pytest.raises(ValueError, match=r"expected a tensor of shape \[8, 4\], got \[4, 4\]"):
        embedding.weight_loader(embedding.weight, weight[:4])
    for ids, error in (([0, 8], "below the 8 tokens of the vocabulary, got 8 at index 1"), ([-1], "got -1 at index 0")):
        with pytest.raises(ValueError, match=error):
            embedding(np.array(ids))
    head = make(ParallelLMHead, weight, 0, 1)
    with pytest.raises(ValueError, match=r"x must have shape \[any, 4\], got \[2, 3\]"):
        head(np.zeros((2, 3), np.float32))
    for offsets in ([0, 3], [0, 0]):
        context.set_context(True, np.array(offsets))
        with pytest.raises(ValueError, match="cu_seqlens_q must be offsets up to 2, the rows of x, got"):
            head(np.zeros((2, 4), np.float32))


def test_prefill_needs_a_context_of_prefill() -> None:
    head = make(ParallelLMHead, np.zeros((8, 4), np.float32), 0, 1)
    context.set_context(True)
    with pytest.raises(ValueError, match="cu_seqlens_q"):
        head(np.zeros((2, 4), np.float32))
