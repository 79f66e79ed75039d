"""`engine/block_manager.py`: two pools beside each other, through any order of calls that a scheduler could make."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from parity import counts
from parity.programs import token_lists
from parity.snapshots import block_tokens, describe_blocks


class Pools(RuleBasedStateMachine):
    """Sequences come, are computed in chunks, grow, are preempted and leave; after each call all books are equal."""

    def __init__(self, subject: Any, reference: Any) -> None:
        super().__init__()
        self.sides = (subject, reference)
        self.pools: list[Any] = []
        self.admitted: list[tuple[Any, Any]] = []
        self.waiting: list[tuple[Any, Any]] = []
        counts.add("block_manager", examples=1)

    @initialize(block_size=st.integers(2, 6) | st.sampled_from([16, 256]), num_blocks=st.integers(1, 12))
    def make(self, block_size: int, num_blocks: int) -> None:
        self.block_size = block_size
        for side in self.sides:
            side.sequence.Sequence.block_size = block_size
            side.sequence.Sequence.counter = itertools.count()
            self.pools.append(side.block_manager.BlockManager(num_blocks, block_size))

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        token_ids = data.draw(token_lists(self.block_size))
        self.waiting.append(tuple(side.sequence.Sequence(token_ids) for side in self.sides))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        seqs = data.draw(st.sampled_from(self.waiting))
        ours, theirs = (pool.can_allocate(seq) for pool, seq in zip(self.pools, seqs, strict=True))
        assert ours == theirs
        if theirs >= 0:
            for pool, seq in zip(self.pools, seqs, strict=True):
                pool.allocate(seq, theirs)
            self.waiting.remove(seqs)
            self.admitted.append(seqs)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        """The whole rest of a sequence, or a chunk of it."""
        seqs = data.draw(st.sampled_from(self.admitted))
        left = seqs[1].num_tokens - seqs[1].num_cached_tokens
        count = data.draw(st.just(left) | st.integers(0, left))
        for pool, seq in zip(self.pools, seqs, strict=True):
            seq.num_scheduled_tokens = count
            pool.hash_blocks(seq)
            seq.num_cached_tokens += count
            seq.num_scheduled_tokens = 0

    def computed(self) -> list[tuple[Any, Any]]:
        return [seqs for seqs in self.admitted if seqs[1].num_cached_tokens == seqs[1].num_tokens]

    @precondition(lambda self: self.computed())
    @rule(data=st.data(), token_id=st.integers(0, 6))
    def decode(self, data: st.DataObject, token_id: int) -> None:
        """A token more and its place, or a preemption."""
        seqs = data.draw(st.sampled_from(self.computed()))
        for seq in seqs:
            seq.append_token(token_id)
        ours, theirs = (bool(pool.can_append(seq)) for pool, seq in zip(self.pools, seqs, strict=True))
        assert ours == theirs
        if theirs:
            for pool, seq in zip(self.pools, seqs, strict=True):
                pool.may_append(seq)
        else:
            self.leave(seqs)
            self.waiting.append(seqs)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from(self.admitted)))

    def leave(self, seqs: tuple[Any, Any]) -> None:
        for pool, seq in zip(self.pools, seqs, strict=True):
            pool.deallocate(seq)
        self.admitted.remove(seqs)

    @invariant()
    def equal(self) -> None:
        if self.pools:
            counts.add("block_manager", steps=1)
            ours, theirs = self.pools
            assert describe_blocks(ours) == describe_blocks(theirs)
            assert block_tokens(ours) == block_tokens(theirs)
        for ours, theirs in [*self.admitted, *self.waiting]:
            assert list(ours.block_table) == theirs.block_table
            assert ours.num_cached_tokens == theirs.num_cached_tokens

    @invariant()
    def conserved(self) -> None:
        """Every block is free or used, once; it is counted as often as it is in a table."""
        for side, pool in enumerate(self.pools):
            assert sorted([*pool.free_block_ids, *pool.used_block_ids]) == list(range(len(pool.blocks)))
            tables = list(itertools.chain.from_iterable(seqs[side].block_table for seqs in self.admitted))
            assert [block.ref_count for block in pool.blocks] == [tables.count(i) for i in range(len(pool.blocks))]


def test_pools(reference: Any, subject: Any) -> None:
    run_state_machine_as_test(lambda: Pools(subject, reference), settings=counts.examples(0.5))


@counts.examples(0.25)
@given(blocks=st.integers(1, 4), more=st.integers(0, 2), changed=st.none() | st.integers(0, 9))
def test_a_prompt_that_comes_again(reference: Any, subject: Any, blocks: int, more: int, changed: int | None) -> None:
    """As many of its blocks are found as nano-vLLM finds: not the last one, so that there is something to compute."""
    block_size = 3
    first = [i % 5 for i in range(blocks * block_size + more)]
    second = [token + (i == changed) for i, token in enumerate(first)]
    found = []
    for side in (subject, reference):
        side.sequence.Sequence.block_size = block_size
        side.sequence.Sequence.counter = itertools.count()
        pool = side.block_manager.BlockManager(12, block_size)
        seqs = [side.sequence.Sequence(token_ids) for token_ids in (first, second)]
        for seq in seqs:
            pool.allocate(seq, pool.can_allocate(seq))
            seq.num_scheduled_tokens = seq.num_tokens - seq.num_cached_tokens
            pool.hash_blocks(seq)
        found.append([(seq.num_cached_tokens, list(seq.block_table)) for seq in seqs])
    counts.add("block_manager", examples=1)
    assert found[0] == found[1]


@counts.examples()
@given(token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=40), prefix=st.just(-1) | st.integers(0, 2**64 - 1))
def test_hashes(reference: Any, subject: Any, token_ids: list[int], prefix: int) -> None:
    hashes = [side.block_manager.BlockManager.compute_hash(token_ids, prefix) for side in (subject, reference)]
    assert hashes[0] == hashes[1]
