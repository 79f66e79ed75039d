"""Block managers as nano-vLLM's programs use them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from engine_faces import class_attributes, held
from nanovllm.engine.block_manager import Block, BlockManager
from nanovllm.engine.sequence import Sequence
from nanovllm.exceptions import PreconditionError

__all__ = ["class_attributes"]
"""The fixture that every test here runs under."""


def test_a_pool_shares_prefixes_and_takes_blocks_back() -> None:
    pool = BlockManager(6, 4)
    first, second = Sequence(range(9)), Sequence([*range(8), 77])
    pool.allocate(first, pool.can_allocate(first))
    first.num_scheduled_tokens = 9
    pool.hash_blocks(first)
    assert pool.can_allocate(second) == 2
    pool.allocate(second, 2)
    assert (second.block_table, second.num_cached_tokens) == ([0, 1, 3], 8)
    assert [block.ref_count for block in pool.blocks] == [2, 2, 1, 1, 0, 0]
    assert pool.blocks[1].token_ids == [4, 5, 6, 7]
    assert pool.hash_to_block_id == {pool.blocks[0].hash: 0, pool.blocks[1].hash: 1}
    assert pool.blocks[1].hash == BlockManager.compute_hash([4, 5, 6, 7], pool.blocks[0].hash)
    assert (pool.free_block_ids, pool.used_block_ids) == (deque([4, 5]), {0, 1, 2, 3})
    pool.deallocate(first)
    assert (pool.free_block_ids, first.block_table, first.num_cached_tokens) == (deque([4, 5, 2]), [], 0)
    assert pool.can_allocate(Sequence(range(100, 120))) == -1


def test_misuse_of_a_pool_changes_nothing() -> None:
    pool, seq = BlockManager(2, 4), Sequence([1, 2, 3, 4, 5])
    pool.allocate(seq, 0)
    before = pool.free_block_ids, pool.used_block_ids, pool.hash_to_block_id, seq.__getstate__()
    calls: list[Callable[[], object]] = [
        lambda: pool.allocate(seq, 0),
        lambda: pool.allocate(Sequence([1]), 1),
        lambda: pool.allocate(Sequence([1]), 0),
        lambda: pool.may_append(seq),
        lambda: BlockManager(2, 8).may_append(seq),
        lambda: pool.can_allocate(held()) and pool.allocate(held(), 0),
        lambda: pool.deallocate(held()),
        lambda: BlockManager(2, 4).deallocate(seq),
    ]
    for call in calls:
        with pytest.raises(AssertionError) as caught:
            call()
        assert isinstance(caught.value, ValueError)
    seq.num_scheduled_tokens = 6
    with pytest.raises(PreconditionError, match="0 \\+ 6 of 5"):
        pool.hash_blocks(seq)
    seq.num_scheduled_tokens = 0
    assert (pool.free_block_ids, pool.used_block_ids, pool.hash_to_block_id, seq.__getstate__()) == before


@pytest.mark.parametrize("arguments", [(-1, 4), (2**64, 4), (2**40, 4), (1, 1), (1, 0), (1, -4), ("a", 4), (1.5, 4)])
def test_pools_that_cannot_be(arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError, MemoryError)):
        BlockManager(*arguments)


@pytest.mark.parametrize("arguments", [([2**63],), ([1], -2), ([1], 2**64), (["a"],), (5,), ([1], "a")])
def test_hashes_of_what_is_no_token_list(arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        BlockManager.compute_hash(*arguments)


def test_blocks_by_hand_and_blocks_of_a_pool() -> None:
    block = Block(7)
    assert (block.block_id, block.ref_count, block.hash, block.token_ids) == (7, 0, -1, [])
    block.update(99, [1, 2])
    assert (block.hash, block.token_ids) == (99, [1, 2])
    block.reset()
    assert (block.ref_count, block.hash, block.token_ids) == (1, -1, [])
    pool = BlockManager(2, 4)
    view = pool.blocks[0]
    with pytest.raises(PreconditionError):
        view.reset()
    pool.allocate(Sequence([1]), 0)
    assert view.ref_count == 1
