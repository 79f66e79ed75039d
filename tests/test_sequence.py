"""Sequences: what they own, what they refuse, and what pickle carries."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine_faces import class_attributes, config, held, through_pickle
from nanovllm import SamplingParams, _core
from nanovllm.engine.block_manager import BlockManager
from nanovllm.engine.scheduler import Scheduler
from nanovllm.engine.sequence import Sequence, SequenceStatus
from nanovllm.exceptions import PreconditionError

__all__ = ["class_attributes"]
"""The fixture that every test here runs under."""


def test_a_sequence_on_its_own() -> None:
    seq = Sequence([5, 6, 7, 8, 9], SamplingParams(temperature=0.6, max_tokens=3, ignore_eos=True))
    assert (seq.seq_id, seq.status, seq.is_finished, seq.finish_reason) == (0, SequenceStatus.WAITING, False, None)
    assert (len(seq), seq.num_tokens, seq.num_prompt_tokens, seq.num_completion_tokens) == (5, 5, 5, 0)
    assert (seq.temperature, seq.max_tokens, seq.ignore_eos) == (0.6, 3, True)
    assert (seq.num_blocks, seq.last_block_num_tokens, seq.block(1), seq.block_table) == (2, 1, [9], [])
    assert (seq[0], seq[-1], seq[1:3], seq[::-2], list(seq)) == (5, 9, [6, 7], [9, 7, 5], [5, 6, 7, 8, 9])
    seq.append_token(np.int64(10))
    assert (seq.last_token, seq.completion_token_ids, seq.prompt_token_ids) == (10, [10], [5, 6, 7, 8, 9])
    assert seq != Sequence([5, 6, 7, 8, 9])
    assert len({seq, seq}) == 1
    assert "Sequence 0" in repr(seq)


def test_block_size_and_counter_are_the_classes() -> None:
    seq = Sequence(range(10))
    assert (seq.num_blocks, seq.last_block_num_tokens) == (3, 2)
    Sequence.block_size = 8
    assert (seq.num_blocks, seq.last_block_num_tokens, seq.block(1)) == (2, 2, [8, 9])
    Sequence.counter = iter([41, 2**64])
    assert Sequence([1]).seq_id == 41
    with pytest.raises(ValueError, match="counter"):
        Sequence([1])
    Sequence.counter = itertools.count()
    Sequence.block_size = 1
    with pytest.raises(ValueError, match="block_size"):
        _ = seq.num_blocks
    with pytest.raises(ValueError, match="block_size"):
        Sequence([1])


def test_what_a_program_may_set() -> None:
    seq = Sequence([1, 2, 3])
    seq.status = SequenceStatus.RUNNING
    seq.is_prefill, seq.num_cached_tokens, seq.num_scheduled_tokens, seq.seq_id = False, 2, 1, 9
    seq.temperature, seq.max_tokens, seq.ignore_eos = 0.5, 7, True
    seq.note = "kept"
    assert (seq.status, seq.is_prefill, seq.num_cached_tokens) == (SequenceStatus.RUNNING, False, 2)
    assert (seq.num_scheduled_tokens, seq.seq_id, seq.note) == (1, 9, "kept")
    assert (seq.temperature, seq.max_tokens, seq.ignore_eos) == (0.5, 7, True)
    for name in ("token_ids", "last_token", "num_tokens", "num_prompt_tokens", "is_finished"):
        with pytest.raises(AttributeError):
            setattr(seq, name, [1])


def test_changes_of_a_block_table_are_the_sequences() -> None:
    seq = Sequence([1, 2, 3])
    seq.block_table = (3, 4)
    seq.block_table.append(5)
    seq.block_table += [6, 7]
    seq.block_table[0] = 2
    assert seq.block_table.pop() == 7
    assert seq.block_table == [2, 4, 5, 6]
    assert seq.block_table + [-1] == [2, 4, 5, 6, -1]  # noqa: RUF005 - what nano-vLLM's code writes
    with pytest.raises(ValueError, match=r"block_table\[4\]"):
        seq.block_table.append(-1)
    assert seq.block_table == [2, 4, 5, 6]
    seq.block_table.clear()
    assert not seq.block_table
    with pytest.raises(AttributeError, match="block_table"):
        held().block_table.append(1)


@pytest.mark.parametrize(
    ("change", "error", "name"),
    [
        (lambda s: setattr(s, "num_cached_tokens", -1), ValueError, "num_cached_tokens"),
        (lambda s: setattr(s, "num_scheduled_tokens", 2**64), ValueError, "num_scheduled_tokens"),
        (lambda s: setattr(s, "num_scheduled_tokens", 1.5), TypeError, "num_scheduled_tokens"),
        (lambda s: setattr(s, "is_prefill", "no"), TypeError, "is_prefill"),
        (lambda s: setattr(s, "status", "RUNNING"), ValueError, "SequenceStatus"),
        (lambda s: setattr(s, "block_table", [2**31]), ValueError, r"block_table\[0\]"),
        (lambda s: setattr(s, "block_table", 3), TypeError, "."),
        (lambda s: setattr(s, "temperature", -1), ValueError, "temperature"),
        (lambda s: setattr(s, "temperature", 1e39), ValueError, "temperature"),
        (lambda s: setattr(s, "max_tokens", 0), ValueError, "max_tokens"),
        (lambda s: setattr(s, "seq_id", -1), ValueError, "seq_id"),
        (lambda s: s.append_token(-1), ValueError, "token_id"),
        (lambda s: s.append_token(2**40), ValueError, "token_id"),
        (lambda s: s.append_token("a"), TypeError, "token_id"),
        (lambda s: s[3], IndexError, "."),
        (lambda s: s[-4], IndexError, "."),
        (lambda s: s[2**70], IndexError, "."),
        (lambda s: s["a"], TypeError, "."),
        (lambda s: s.block(1), AssertionError, "block"),
        (lambda s: s.block(-1), AssertionError, "block"),
        (lambda s: s.block(2**70), AssertionError, "block"),
    ],
)
def test_bad_values_are_named(change: Callable[[Sequence], Any], error: type[Exception], name: str) -> None:
    seq = Sequence([1, 2, 3])
    before = seq.__getstate__()
    with pytest.raises(error, match=name):
        change(seq)
    assert seq.__getstate__() == before


@pytest.mark.parametrize(
    ("token_ids", "error"),
    [
        ([], ValueError),
        ([-1], ValueError),
        ([2**32], ValueError),
        ([2**80], ValueError),
        (["a"], TypeError),
        (5, TypeError),
    ],
)
def test_bad_prompts_are_refused(token_ids: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Sequence(token_ids)


def test_an_object_without_a_sequence_says_so() -> None:
    seq = Sequence.__new__(Sequence)
    assert "not initialised" in repr(seq)
    for call in (lambda: len(seq), lambda: seq.block_table, lambda: BlockManager(1, 4).allocate(seq, 0)):
        with pytest.raises(AttributeError, match="__init__"):
            call()
    with pytest.raises(RuntimeError, match="once"):
        Sequence([1]).__init__([2])  # type: ignore[misc]


def test_pickling_carries_what_a_step_needs() -> None:
    seq = Sequence([1, 2, 3, 4, 5])
    seq.num_cached_tokens, seq.num_scheduled_tokens, seq.block_table = 2, 3, [7, 8]
    assert seq.__getstate__() == (5, 5, 2, 3, [7, 8], [1, 2, 3, 4, 5])
    for other in (through_pickle(seq), copy.deepcopy(seq)):
        assert isinstance(other, Sequence)
        assert other.__getstate__() == seq.__getstate__()
    seq.is_prefill = False
    other = through_pickle(seq)
    assert other.__getstate__() == (5, 5, 2, 3, [7, 8], 5)
    assert (other.token_ids, len(other), other.last_token, other.num_blocks, other.last_block_num_tokens) == (
        [],
        5,
        5,
        2,
        1,
    )
    for name in ("seq_id", "status", "temperature", "max_tokens", "ignore_eos"):
        with pytest.raises(AttributeError, match=name):
            getattr(other, name)
    with pytest.raises(PreconditionError, match="pickled"):
        Scheduler(config()).add(other)
    left, right = _core.prepare_decode([seq]), _core.prepare_decode([other])
    assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    "state",
    [
        (1, 1, 0, 0, []),
        (2, 1, 0, 0, [], [1]),
        (1, 2, 0, 0, [], 5),
        (0, 0, 0, 0, [], 5),
        (1, 1, -1, 0, [], 5),
        (1, 1, 0, 0, [-1], 5),
    ],
)
def test_states_that_contradict_themselves(state: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Sequence.__new__(Sequence).__setstate__(state)
