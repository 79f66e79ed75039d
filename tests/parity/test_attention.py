"""`layers/attention.py`: what is attended to, and what the caches then hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.layers.attention import Attention, store_kvcache
from nanovllm.utils import context
from parity import counts
from parity.arrays import DEVICES, FLOAT32, Rng, check, dtypes, normal, rngs
from parity.fixture import Reference


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    yield
    context.reset_context()


@dataclass
class Heads:
    """The heads of a layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float


@st.composite
def heads(draw: st.DrawFn) -> Heads:
    num_kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    head_dim = draw(st.sampled_from([2, 6, 16, 32, 50, 64]))
    scale = head_dim**-0.5 * draw(st.sampled_from([1.0, 1.0, 0.3, 4.0]))
    return Heads(num_kv_heads * group, num_kv_heads, head_dim, scale)


lengths = st.integers(0, 11).flatmap(lambda i: st.integers(*{0: (250, 300), 1: (510, 520)}.get(i, (1, 40))))
"""Tokens of a sequence: few, or now and then about as many as end a partition of 256."""


def check_forward(
    reference: Reference,
    device: str,
    heads: Heads,
    qkv: tuple[np.ndarray, ...],
    caches: tuple[np.ndarray, ...],
    fields: dict[str, Any],
) -> None:
    """Runs both on copies of the caches, and compares what they give and what they leave there."""
    context.set_context(**fields)
    layer = Attention(heads.num_heads, heads.head_dim, heads.scale, heads.num_kv_heads, device=device)
    if caches:
        layer.k_cache, layer.v_cache = (cache.copy() for cache in caches)
    expected_caches = [cache.copy() for cache in caches] or [layer.k_cache, layer.v_cache]
    before = [x.copy() for x in qkv]
    got = layer(*qkv)
    expected = reference.attention.attention(*qkv, *expected_caches, heads.scale, context.get_context())
    check(reference, "attention", got, expected)
    np.testing.assert_array_equal(layer.k_cache, expected_caches[0])
    np.testing.assert_array_equal(layer.v_cache, expected_caches[1])
    for x, was in zip(qkv, before, strict=True):
        np.testing.assert_array_equal(x, was)


def rows(rng: Rng, n: int, heads: Heads, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Queries, keys and values of `n` tokens."""
    counts = (heads.num_heads, heads.num_kv_heads, heads.num_kv_heads)
    return tuple(normal(rng, (n, count, heads.head_dim), dtype) for count in counts)


def starts(lengths: list[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int32)


@dataclass
class Pool:
    """Caches full of noise, whose blocks sequences own or share."""

    block_size: int
    tables: list[list[int]]
    caches: tuple[np.ndarray, np.ndarray]

    def slot(self, seq: int, token: int) -> int:
        return self.tables[seq][token // self.block_size] * self.block_size + token % self.block_size

    @property
    def padded(self) -> np.ndarray:
        width = max(len(table) for table in self.tables)
        return np.array([table + [-1] * (width - len(table)) for table in self.tables], np.int32)


def pool(
    data: st.DataObject, rng: Rng, heads: Heads, dtype: np.dtype, lengths: list[int], cached: list[int] | None = None
) -> Pool:
    """Blocks in any order; sequences whose first block is wholly cached may share it."""
    block_size = data.draw(st.one_of(st.integers(2, 40), st.sampled_from([16, 64, 256])))
    needed = [-(-length // block_size) for length in lengths]
    num_blocks = sum(needed) + data.draw(st.integers(0, 3))
    order = rng.permutation(num_blocks).tolist()
    tables = [[order.pop() for _ in range(count)] for count in needed]
    sharing = [seq for seq, count in enumerate(cached or []) if count >= block_size]
    if len(sharing) > 1 and data.draw(st.booleans()):
        tables[sharing[1]][0] = tables[sharing[0]][0]
    shape = (num_blocks, block_size, heads.num_kv_heads, heads.head_dim)
    return Pool(block_size, tables, (normal(rng, shape, dtype), normal(rng, shape, dtype)))


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(
    data=st.data(),
    rng=rngs,
    heads=heads(),
    lengths=st.lists(lengths, min_size=1, max_size=3),
    has_cache=st.booleans(),
)
def test_prefill(
    reference: Reference,
    device: str,
    data: st.DataObject,
    rng: Rng,
    heads: Heads,
    lengths: list[int],
    has_cache: bool,
) -> None:
    """Nothing is cached: keys and values are the rows themselves, which are stored where there is a cache."""
    dtype = data.draw(dtypes(reference))
    offsets = starts(lengths)
    fields = {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets, "max_seqlen_q": max(lengths)}
    fields |= {"is_prefill": True, "max_seqlen_k": max(lengths)}
    caches: tuple[np.ndarray, ...] = ()
    if has_cache:
        blocks = pool(data, rng, heads, dtype, lengths)
        caches = blocks.caches
        slots = [blocks.slot(seq, token) for seq, length in enumerate(lengths) for token in range(length)]
        fields["slot_mapping"] = np.array(slots, np.int32)
    check_forward(reference, device, heads, rows(rng, int(offsets[-1]), heads, dtype), caches, fields)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, heads=heads(), lengths=st.lists(lengths, min_size=1, max_size=3))
def test_prefill_with_a_prefix(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, heads: Heads, lengths: list[int]
) -> None:
    """Of each sequence the last rows are computed, and the tokens before are in the cache."""
    dtype = data.draw(dtypes(reference))
    computed = [data.draw(st.integers(1, length)) for length in lengths]
    cached = [length - new for length, new in zip(lengths, computed, strict=True)]
    blocks = pool(data, rng, heads, dtype, lengths, cached)
    tokens = [(seq, token) for seq, length in enumerate(lengths) for token in range(cached[seq], length)]
    fields = {
        "is_prefill": True,
        "cu_seqlens_q": starts(computed),
        "cu_seqlens_k": starts(lengths),
        "max_seqlen_q": max(computed),
        "max_seqlen_k": max(lengths),
        "slot_mapping": np.array([blocks.slot(*token) for token in tokens], np.int32),
        "block_tables": blocks.padded,
    }
    check_forward(reference, device, heads, rows(rng, sum(computed), heads, dtype), blocks.caches, fields)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(
    data=st.data(),
    rng=rngs,
    heads=heads(),
    lengths=st.lists(lengths, min_size=1, max_size=6),
    padding=st.integers(0, 2),
)
def test_decode(
    reference: Reference,
    device: str,
    data: st.DataObject,
    rng: Rng,
    heads: Heads,
    lengths: list[int],
    padding: int,
) -> None:
    """One row a sequence; a batch that is padded for a graph has rows of no slot and no context."""
    dtype = data.draw(dtypes(reference))
    blocks = pool(data, rng, heads, dtype, lengths)
    slots = [blocks.slot(seq, length - 1) for seq, length in enumerate(lengths)] + [-1] * padding
    tables = np.pad(blocks.padded, ((0, padding), (0, 0)))
    fields = {
        "is_prefill": False,
        "slot_mapping": np.array(slots, np.int32),
        "context_lens": np.array(lengths + [0] * padding, np.int32),
        "block_tables": tables,
    }
    check_forward(reference, device, heads, rows(rng, len(slots), heads, dtype), blocks.caches, fields)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, heads=heads(), n=st.integers(1, 30))
def test_store(reference: Reference, device: str, data: st.DataObject, rng: Rng, heads: Heads, n: int) -> None:
    dtype = data.draw(dtypes(reference))
    num_blocks, block_size = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 20))
    slots = rng.permutation(num_blocks * block_size)[:n]
    slots[rng.random(len(slots)) < 0.2] = -1
    _, key, value = rows(rng, len(slots), heads, dtype)
    shape = (num_blocks, block_size, heads.num_kv_heads, heads.head_dim)
    caches = [normal(rng, shape, dtype) for _ in range(2)]
    expected = [cache.copy() for cache in caches]
    store_kvcache(key, value, *caches, slots, device=device)
    reference.attention.store_kvcache(key, value, *expected, slots)
    np.testing.assert_array_equal(caches[0], expected[0])
    np.testing.assert_array_equal(caches[1], expected[1])


def test_store_writes_through_views() -> None:
    """One layer of a pool of all layers, as a model runner hands it out, and keys that are columns of qkv."""
    memory = np.zeros((2, 3, 4, 5, 2, 8), FLOAT32)  # [kv, layers, blocks, block_size, heads, dim]
    qkv = np.random.default_rng(0).standard_normal((6, 48)).astype(FLOAT32)
    key, value = (qkv[:, start : start + 16].reshape(6, 2, 8) for start in (16, 32))
    store_kvcache(key, value, memory[0, 1], memory[1, 1], np.array([7, 0, 19, 3, -1, 12]))
    expected = np.zeros_like(memory)
    flat = expected.reshape(2, 3, 20, 2, 8)
    for row, slot in {0: 7, 1: 0, 2: 19, 3: 3, 5: 12}.items():
        flat[0, 1, slot], flat[1, 1, slot] = key[row], value[row]
    np.testing.assert_array_equal(memory, expected)


def test_more_queries_than_keys() -> None:
    """Masks are aligned to the end: the first queries see nothing."""
    heads = Heads(2, 1, 4, 0.5)
    q, k, v = rows(np.random.default_rng(0), 5, heads, FLOAT32)
    context.set_context(True, np.array([0, 3, 5]), np.array([0, 1, 1]), 3, 1)
    out = Attention(2, 4, 0.5, 1)(q, k[:1], v[:1])
    np.testing.assert_array_equal(out[[0, 1, 3, 4]], 0)
    np.testing.assert_array_equal(out[2], np.repeat(v[0], 2, axis=0))


def test_constructor_refusals() -> None:
    for arguments, message in [
        ((3, 8, 1.0, 2), "num_kv_heads must divide num_heads, got 2 and 3"),
        ((3, 8, 1.0, 0), "num_kv_heads must divide num_heads, got 0 and 3"),
        ((2, 7, 1.0, 2), "head_dim must be even and positive, got 7"),
        ((2, 8, float("nan"), 2), "scale must be finite"),
        ((2, -8, 1.0, 2), "head_dim is -8, outside"),
        ((2**40, 2**40, 1.0, 1), "are too large"),
    ]:
        with pytest.raises(ValueError, match=message):
            Attention(*arguments)


def test_store_refusals() -> None:
    key, cache = np.zeros((2, 1, 4), FLOAT32), np.zeros((3, 5, 1, 4), FLOAT32)

    def refused(message: str, slots: list[int], key: np.ndarray = key, cache: np.ndarray = cache) -> None:
        with pytest.raises(ValueError, match=message):
            store_kvcache(key, key, cache, cache.copy(), np.array(slots))

    refused(r"slot_mapping\[1\] is 15, the cache has 3 blocks of 5", [0, 15])
    refused(r"slot_mapping\[0\] is -2, the cache has", [-2, 0])
    refused(r"slot_mapping\[1\] is 4, which another row has too", [4, 4])
    refused("slot_mapping has 1 entries, where key asks for 2", [4])
    refused(r"must have shape \[num_blocks, block_size, 1, 4\], got \[3, 5, 4\]", [0, 1], cache=cache[:, :, 0])
    refused(r"key must have shape \[any, any, any\]", [0, 1], key=key[:, 0])
    frozen = cache.copy()
    frozen.flags.writeable = False
    refused("read-only", [0, 1], cache=frozen)
    assert not cache.any()


def test_context_refusals() -> None:
    heads = Heads(2, 1, 4, 0.5)
    q, k, v = rows(np.random.default_rng(0), 2, heads, FLOAT32)
    layer = Attention(2, 4, 0.5, 1)

    def refused(message: str, *arguments: Any, **fields: Any) -> None:
        context.set_context(*arguments, **fields)
        with pytest.raises(ValueError, match=message):
            layer(q, k, v)

    refused("cu_seqlens_q must rise from 0 to the 2 rows", True, np.array([0, 1]), np.array([0, 2]))
    refused("cu_seqlens_k must rise from 0 to the 2 rows", True, np.array([0, 2]), np.array([1, 2]))
    refused("cu_seqlens_q must rise", True, np.array([0, 3, 2]), np.array([0, 1, 2]))
    refused("cu_seqlens_k has 3 entries, where cu_seqlens_q asks for 2", True, np.array([0, 2]), np.array([0, 1, 2]))
    layer.k_cache, layer.v_cache = np.zeros((3, 4, 1, 4), FLOAT32), np.zeros((3, 4, 1, 4), FLOAT32)
    decode: dict[str, Any] = {"slot_mapping": np.array([0, 4]), "context_lens": np.array([5, 1])}
    refused(r"block_tables\[0, 1\] is -1, the cache has 3", False, **decode, block_tables=np.array([[0, -1], [1, -1]]))
    refused(r"block_tables\[0, 1\] is 3, the cache has 3", False, **decode, block_tables=np.array([[0, 3], [1, 2]]))
    refused("sequence 0 needs 2 blocks, block_tables has 1", False, **decode, block_tables=np.array([[0], [1]]))
    refused("block_tables has 1 entries", False, **decode, block_tables=np.array([[0, 1]]))
    refused("block_tables must have 2 dimensions", False, **decode, block_tables=np.array([0, 1]))
