"""`engine/sequence.py`: what a sequence says of itself as it grows, and what a pickle of it carries."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity import counts, ours

TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40)
COUNTS = ("num_tokens", "num_prompt_tokens", "num_completion_tokens", "num_cached_tokens", "num_scheduled_tokens")
BLOCKS = ("num_blocks", "last_block_num_tokens", "block_size")
STATE = ("seq_id", "last_token", "is_finished", "is_prefill", "temperature", "max_tokens", "ignore_eos")
LISTS = ("token_ids", "prompt_token_ids", "completion_token_ids", "block_table")


def describe(seq: Any) -> dict[str, Any]:
    """Everything that can be asked of a sequence."""
    seen = {name: getattr(seq, name) for name in (*COUNTS, *BLOCKS, *STATE)}
    seen |= {name: list(getattr(seq, name)) for name in LISTS}
    blocks = [list(seq.block(i)) for i in range(seq.num_blocks)]
    return seen | {"status": seq.status.name, "len": len(seq), "blocks": blocks}


def make(side: Any, block_size: int, token_ids: list[int], **options: Any) -> Any:
    """A sequence numbered 7."""
    side.sequence.Sequence.block_size = block_size
    side.sequence.Sequence.counter = itertools.count(7)
    return side.sequence.Sequence(token_ids, side.sampling_params.SamplingParams(**options))


@counts.examples()
@given(
    block_size=st.integers(2, 256),
    token_ids=TOKENS,
    more=st.lists(st.integers(0, 2**31 - 1), max_size=10),
    options=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.25, 1.0, 7.5]),
            "max_tokens": st.integers(1, 99),
            "ignore_eos": st.booleans(),
        }
    ),
)
def test_growth(
    reference: Any, subject: Any, block_size: int, token_ids: list[int], more: list[int], options: dict[str, Any]
) -> None:
    seqs = [make(side, block_size, token_ids, **options) for side in (subject, reference)]
    assert describe(seqs[0]) == describe(seqs[1])
    for token_id in more:
        for seq in seqs:
            seq.append_token(token_id)
        assert describe(seqs[0]) == describe(seqs[1])
        counts.add("sequence", steps=1)


@counts.examples()
@given(
    token_ids=TOKENS,
    index=st.integers(-50, 50),
    parts=st.slices(40),
)
def test_indexing(reference: Any, subject: Any, token_ids: list[int], index: int, parts: slice) -> None:
    left, right = (make(side, 4, token_ids) for side in (subject, reference))
    assert list(left[parts]) == list(right[parts])
    if -len(token_ids) <= index < len(token_ids):
        assert left[index] == right[index]
    else:
        for seq in (left, right):
            with pytest.raises(IndexError):
                seq[index]


@counts.examples()
@given(
    token_ids=TOKENS,
    more=st.lists(st.integers(0, 99), max_size=3),
    cached=st.integers(0, 40),
    scheduled=st.integers(0, 40),
    table=st.lists(st.integers(0, 10**6), max_size=5),
    is_prefill=st.booleans(),
)
def test_pickle(
    reference: Any,
    subject: Any,
    token_ids: list[int],
    more: list[int],
    cached: int,
    scheduled: int,
    table: list[int],
    is_prefill: bool,
) -> None:
    """A sequence in prefill takes its tokens along; a decoding one only the last."""
    seen = []
    for side in (subject, reference):
        seq = make(side, 4, token_ids)
        for token_id in more:
            seq.append_token(token_id)
        seq.num_cached_tokens, seq.num_scheduled_tokens = cached, scheduled
        seq.block_table, seq.is_prefill = table, is_prefill
        *numbers, state_table, tokens = seq.__getstate__()
        copy = side.sequence.through_pickle(seq)
        names = ("num_tokens", "num_prompt_tokens", "num_cached_tokens", "num_scheduled_tokens", "last_token")
        seen.append((numbers, list(state_table), tokens, [getattr(copy, name) for name in names]))
        seen[-1] += (list(copy.block_table), list(copy.token_ids), len(copy), copy.num_blocks)
    assert seen[0] == seen[1]


def test_numbers_come_from_the_class(reference: Any, subject: Any) -> None:
    for side in (subject, reference):
        side.sequence.Sequence.counter = itertools.count(100)
        assert [side.sequence.Sequence([1]).seq_id for _ in range(3)] == [100, 101, 102]


def test_the_prompt_is_copied(reference: Any, subject: Any) -> None:
    for side in (subject, reference):
        prompt = [1, 2, 3]
        seq = make(side, 2, prompt)
        prompt.append(4)
        seq.append_token(5)
        assert (list(seq.token_ids), prompt) == ([1, 2, 3, 5], [1, 2, 3, 4])


def test_statuses(reference: Any, subject: Any) -> None:
    for side in (subject, reference):
        assert [(s.name, s.value) for s in side.sequence.SequenceStatus] == [
            ("WAITING", 1),
            ("RUNNING", 2),
            ("FINISHED", 3),
        ]
        seq = make(side, 2, [1])
        assert seq.status is side.sequence.SequenceStatus.WAITING
        seq.status = side.sequence.SequenceStatus.FINISHED
        assert seq.is_finished


def test_what_is_refused(reference: Any) -> None:
    """nano-vLLM fails an index or an assertion; we say what is wrong."""
    ours_raises, theirs_raises = (ValueError, (ValueError, IndexError)), (IndexError, AssertionError)
    for side, (no_tokens, no_block) in ((ours, ours_raises), (reference, theirs_raises)):
        with pytest.raises(no_tokens):
            make(side, 2, [])
        for block in (-1, 2):
            with pytest.raises(no_block):
                make(side, 2, [1, 2, 3]).block(block)
