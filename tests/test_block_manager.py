"""Block managers as nano-vLLM's programs use them."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_faces import GREEDY, class_attributes, held, through_pickle
from nanovllm import LLM
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


LONG = [[5, 6, 7] * 86, [5, 6, 7] * 86 + [8], [4, 5, 6, 7]]
"""The first two share a full block of an engine's cache, and all go on in one of their own."""


def lies(pool: BlockManager, table: list[int]) -> list[Callable[[], object]]:
    """Calls that give back, extend or fill the blocks of `table`, which are not the caller's."""
    forged = Sequence([1] * 1100, GREEDY)
    forged.block_table = table
    forged.num_scheduled_tokens = pool.block_size * len(table)
    return [lambda: pool.deallocate(forged), lambda: pool.may_append(forged), lambda: pool.hash_blocks(forged)]


def test_blocks_are_given_back_by_whom_they_were_given_to(llm: LLM) -> None:
    expected = [output["token_ids"] for output in llm.generate(LONG, GREEDY, use_tqdm=False)]
    pool, ids = llm.scheduler.block_manager, [llm.add_request(prompt, GREEDY) for prompt in LONG]
    llm.step()
    running = list(llm.scheduler.running)
    assert len(running) == len(LONG)
    assert len({block for seq in running for block in seq.block_table}) < sum(len(seq.block_table) for seq in running)
    before = pool.free_block_ids, pool.used_block_ids, pool.hash_to_block_id
    for victim in running:
        copies = [copy.copy(victim), copy.deepcopy(victim), through_pickle(victim)]
        calls = lies(pool, victim.block_table) + [lambda seq=seq: pool.deallocate(seq) for seq in [victim, *copies]]
        for call in calls:
            with pytest.raises(PreconditionError):
                call()
    with pytest.raises(PreconditionError, match="the pool gave it none"):
        lies(pool, running[0].block_table)[0]()
    assert (pool.free_block_ids, pool.used_block_ids, pool.hash_to_block_id) == before
    outputs = {}
    while not llm.is_finished():
        outputs.update(dict(llm.step()[0]))
    assert [outputs[seq_id] for seq_id in ids] == expected


def test_blocks_of_two_that_share_a_prefix_are_told_apart() -> None:
    pool, first, second = BlockManager(8, 4), Sequence(range(9)), Sequence([*range(8), 77])
    pool.allocate(first, 0)
    first.num_scheduled_tokens = 9
    pool.hash_blocks(first)
    pool.allocate(second, pool.can_allocate(second))
    assert (first.block_table, second.block_table) == ([0, 1, 2], [0, 1, 3])
    for seq, table in ((second, [0, 1, 2]), (second, [0, 1]), (first, [0, 1, 3]), (first, [1, 0, 2]), (first, [])):
        own, seq.block_table = seq.block_table, table
        with pytest.raises(PreconditionError, match="deallocate needs a block table of blocks in use"):
            pool.deallocate(seq)
        with pytest.raises(PreconditionError):
            pool.allocate(seq, 0)
        seq.block_table = own
    pool.deallocate(first)
    assert [block.ref_count for block in pool.blocks][:4] == [1, 1, 0, 1]
    pool.deallocate(second)
    assert len(pool.free_block_ids) == 8


OPS = st.sampled_from(["step", "open", "preempt", "lie", "allocate", "by hand"])
TABLES = st.lists(st.integers(0, 17), min_size=1, max_size=4)
"""Blocks of a pool of 16, and some that it does not have."""


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=st.lists(st.tuples(OPS, st.integers(0, 9), TABLES), max_size=30))
def test_no_program_by_hand_changes_what_others_are_answered(llm: LLM, ops: list[tuple[str, int, list[int]]]) -> None:
    expected = [output["token_ids"] for output in llm.generate(LONG, GREEDY, use_tqdm=False)]
    scheduler, pool = llm.scheduler, llm.scheduler.block_manager
    ids = [llm.add_request(prompt, GREEDY) for prompt in LONG]
    mine: list[Sequence] = []
    answers: dict[int, list[int]] = {}
    for op, number, made in ops:
        queued = [*scheduler.running, *scheduler.waiting]
        match op:
            case "step":
                answers.update(dict(llm.step()[0]))
            case "open":
                scheduler.schedule()
            case "preempt" if queued:
                scheduler.preempt(queued[number % len(queued)])
            case "lie":
                tables = [made, *(seq.block_table for seq in [*queued, *mine] if seq.block_table)]
                for call in lies(pool, tables[number % len(tables)]):
                    with pytest.raises(PreconditionError):
                        call()
            case "allocate" if len(mine) < 2:
                mine.append(Sequence(LONG[number % len(LONG)]))
                pool.allocate(mine[-1], pool.can_allocate(mine[-1]))
            case "by hand":
                seqs, is_prefill = scheduler.schedule()
                scheduler.postprocess(seqs, llm.model_runner.call("run", seqs, is_prefill), is_prefill)
                answers.update({seq.seq_id: seq.completion_token_ids for seq in seqs if seq.is_finished})
    while not llm.is_finished():
        answers.update(dict(llm.step()[0]))
    for seq in mine:
        pool.deallocate(seq)
    assert [answers[seq_id] for seq_id in ids] == expected
