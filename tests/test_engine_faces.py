"""The engine's classes as nano-vLLM's programs use them: what they own, what they refuse, and steps taken by hand."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import GOLDEN
from nanovllm import LLM, SamplingParams, _core
from nanovllm.config import Config
from nanovllm.engine.block_manager import Block, BlockManager
from nanovllm.engine.model_runner import ModelRunner
from nanovllm.engine.scheduler import Scheduler
from nanovllm.engine.sequence import Sequence, SequenceStatus
from nanovllm.exceptions import PreconditionError
from nanovllm.models.qwen3 import Qwen3ForCausalLM
from nanovllm.utils.context import Context, get_context
from nanovllm.utils.loader import load_model

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
PROMPTS = [[1, 2, 3], [4, 5, 6, 7], [1, 2, 3, 9]]


@pytest.fixture(autouse=True)
def class_attributes() -> Iterator[None]:
    """Blocks of four tokens and ids from 0, and everything as it was afterwards."""
    before = Sequence.block_size, Sequence.counter
    Sequence.block_size, Sequence.counter = 4, itertools.count()
    yield
    Sequence.block_size, Sequence.counter = before


def config(**changes: Any) -> SimpleNamespace:
    settings = {
        "max_num_seqs": 4,
        "max_num_batched_tokens": 16,
        "eos": -1,
        "kvcache_block_size": 4,
        "num_kvcache_blocks": 8,
    }
    return SimpleNamespace(**(settings | changes))


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - its own bytes


def run(scheduler: Scheduler, token_id: int = 50) -> None:
    while not scheduler.is_finished():
        seqs, is_prefill = scheduler.schedule()
        scheduler.postprocess(seqs, [token_id] * len(seqs), is_prefill)


# Sequences


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


def held() -> Sequence:
    """A sequence in a scheduler, which it keeps."""
    scheduler, seq = Scheduler(config()), Sequence([1, 2, 3])
    scheduler.add(seq)
    seq.scheduler = scheduler  # type: ignore[attr-defined]
    return seq


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


# Block managers


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


# Schedulers


def test_a_scheduler_hands_out_the_objects_it_was_given() -> None:
    scheduler = Scheduler(config())
    a, b = Sequence([1, 2, 3, 4, 5], SamplingParams(max_tokens=2)), Sequence([1, 2], SamplingParams(max_tokens=3))
    scheduler.add(a)
    scheduler.add(b)
    assert (scheduler.waiting, scheduler.running) == (deque([a, b]), deque())
    assert scheduler.waiting[0] is a
    seqs, is_prefill = scheduler.schedule()
    assert (is_prefill, [seq.num_scheduled_tokens for seq in seqs], a.status) == (True, [5, 2], SequenceStatus.RUNNING)
    assert seqs[0] is a
    assert scheduler.running[1] is b
    scheduler.postprocess(seqs, [50, 51], is_prefill)
    run(scheduler, 60)
    assert (a.completion_token_ids, b.completion_token_ids) == ([50, 60], [51, 60, 60])
    assert (a.is_finished, a.finish_reason, a.block_table, a.num_cached_tokens) == (True, "length", [], 0)
    assert scheduler.block_manager is scheduler.block_manager
    assert len(scheduler.block_manager.free_block_ids) == 8
    with pytest.raises(PreconditionError, match="finished"):
        scheduler.add(a)


@pytest.mark.parametrize("eos", [7, [3, 7], {7, 9}, np.int64(7)])
def test_any_eos_stops(eos: Any) -> None:
    scheduler, seq = Scheduler(config(eos=eos)), Sequence([1], SamplingParams(max_tokens=5))
    deaf = Sequence([1], SamplingParams(max_tokens=5, ignore_eos=True))
    scheduler.add(seq)
    scheduler.add(deaf)
    run(scheduler, 7)
    assert (seq.completion_token_ids, seq.finish_reason) == ([7], "stop")
    assert (len(deaf.completion_token_ids), deaf.finish_reason) == (5, "length")


def test_what_a_pool_can_never_hold_ends() -> None:
    scheduler = Scheduler(config(num_kvcache_blocks=2))
    lone, huge = Sequence([1] * 7, SamplingParams(max_tokens=9)), Sequence([1] * 9)
    scheduler.add(lone)
    run(scheduler)
    assert (lone.num_tokens, lone.finish_reason) == (9, "length")
    scheduler.add(huge)
    assert scheduler.schedule() == ([], False)
    assert huge.is_finished
    assert scheduler.is_finished()
    scheduler.postprocess([], [], False)


def test_preemption_by_hand() -> None:
    scheduler, seqs = Scheduler(config()), [Sequence([i, 2, 3]) for i in range(3)]
    for seq in seqs:
        scheduler.add(seq)
    step = scheduler.schedule()
    scheduler.postprocess(step[0], [9, 9, 9], step[1])
    scheduler.preempt(scheduler.running[1])
    assert (list(scheduler.waiting), list(scheduler.running)) == ([seqs[1]], [seqs[0], seqs[2]])
    assert (seqs[1].status, seqs[1].block_table, seqs[1].num_tokens) == (SequenceStatus.WAITING, [], 4)
    for queue in (scheduler.waiting, scheduler.running):
        for change in (queue.clear, queue.pop, queue.popleft, lambda q=queue: q.append(seqs[0])):
            with pytest.raises(TypeError, match="Scheduler"):
                change()


def test_subclasses() -> None:
    class Counting(Scheduler):
        def __init__(self, settings: object) -> None:
            super().__init__(settings)
            self.steps = 0

        def schedule(self) -> tuple[list[Sequence], bool]:
            self.steps += 1
            return super().schedule()

    class Pool(BlockManager):
        def __init__(self, num_blocks: int, block_size: int) -> None:
            super().__init__(num_blocks, block_size)
            self.name = "pool"

    class Named(Sequence):
        def __init__(self, name: str, token_ids: list[int]) -> None:
            super().__init__(token_ids, SamplingParams(max_tokens=2))
            self.name = name

    scheduler, seq = Counting(config()), Named("a", [1, 2])
    scheduler.add(seq)
    assert isinstance(scheduler.waiting[0], Named)
    run(scheduler)
    assert (scheduler.steps, seq.name, seq.completion_token_ids) == (2, "a", [50, 50])
    assert (Pool(3, 4).name, len(Pool(3, 4).blocks)) == ("pool", 3)


def test_limits_can_be_changed() -> None:
    scheduler = Scheduler(config())
    scheduler.max_num_seqs, scheduler.max_num_batched_tokens, scheduler.eos = 1, 2, [5, 6]
    assert (scheduler.max_num_seqs, scheduler.max_num_batched_tokens, scheduler.eos) == (1, 2, [5, 6])
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        with pytest.raises(ValueError, match=name):
            setattr(scheduler, name, 0)
    for token_ids in ([1, 2, 3], [4]):
        scheduler.add(Sequence(token_ids))
    assert [seq.num_scheduled_tokens for seq in scheduler.schedule()[0]] == [2]


def test_only_the_step_that_was_scheduled_is_booked() -> None:
    scheduler, other = Scheduler(config()), Scheduler(config())
    a, b, foreign = Sequence([1, 2]), Sequence([3]), Sequence([4])
    scheduler.add(a)
    scheduler.add(b)
    other.add(foreign)
    seqs, is_prefill = scheduler.schedule()
    calls: list[Callable[[], object]] = [
        lambda: scheduler.postprocess(seqs, [1], True),
        lambda: scheduler.postprocess(seqs[:1], [1], True),
        lambda: scheduler.postprocess(seqs[::-1], [1, 2], True),
        lambda: scheduler.postprocess(seqs, [1, 2], False),
        lambda: scheduler.postprocess([a, foreign], [1, 2], True),
        lambda: scheduler.postprocess([], [], True),
        lambda: scheduler.postprocess(seqs, [1, -2], True),
        lambda: scheduler.add(a),
        lambda: scheduler.add(foreign),
        lambda: scheduler.preempt(foreign),
        lambda: scheduler.preempt(Sequence([1])),
    ]
    for call in calls:
        with pytest.raises((PreconditionError, ValueError)):
            call()
    with pytest.raises(TypeError):
        scheduler.postprocess([1, 2], [1, 2], True)  # type: ignore[list-item]
    Sequence.counter = itertools.count()
    with pytest.raises(PreconditionError, match="id 0"):
        scheduler.add(Sequence([1]))
    scheduler.postprocess(seqs, [8, 9], is_prefill)
    assert (a.last_token, b.last_token) == (8, 9)


@pytest.mark.parametrize(
    "name", ["num_cached_tokens", "num_scheduled_tokens", "is_prefill", "block_table", "status", "seq_id"]
)
def test_a_scheduler_alone_changes_its_sequences(name: str) -> None:
    seq = held()
    with pytest.raises(AttributeError, match=name):
        setattr(seq, name, getattr(seq, name))
    with pytest.raises(AttributeError, match="tokens"):
        seq.append_token(1)
    seq.max_tokens, seq.temperature, seq.ignore_eos = 2, 0.25, True
    assert (seq.max_tokens, seq.temperature, seq.ignore_eos) == (2, 0.25, True)
    del seq.scheduler  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"max_num_batched_tokens": -1}, "max_num_batched_tokens"),
        ({"kvcache_block_size": 1}, "kvcache_block_size"),
        ({"num_kvcache_blocks": -1}, "num_kvcache_blocks"),
        ({"num_kvcache_blocks": 2**70}, "num_kvcache_blocks"),
        ({"num_kvcache_blocks": 2**62}, "num_kvcache_blocks"),
        ({"eos": 2**40}, "eos"),
        ({"eos": "end"}, "."),
        ({"max_model_len": 0}, "max_model_len"),
        ({"scheduling_policy": "fifo"}, "scheduling_policy"),
    ],
)
def test_settings_outside_their_limits(changes: dict[str, Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        Scheduler(config(**changes))


def test_a_missing_setting_is_named() -> None:
    settings = config()
    del settings.eos
    with pytest.raises(AttributeError, match="eos"):
        Scheduler(settings)


def test_sequences_come_back_when_their_scheduler_goes() -> None:
    scheduler, seq = Scheduler(config()), Sequence([1, 2, 3, 4, 5])
    scheduler.add(seq)
    scheduler.schedule()
    gone = weakref.ref(seq)
    blocks = scheduler.block_manager
    del scheduler
    assert seq.block_table == [0, 1], "the block manager keeps the scheduler"
    del blocks
    gc.collect()
    assert (seq.block_table, seq.token_ids) == ([], [1, 2, 3, 4, 5])
    seq.append_token(6)
    del seq
    gc.collect()
    assert gone() is None


def test_threads_share_a_scheduler() -> None:
    scheduler = Scheduler(config(num_kvcache_blocks=64, max_num_seqs=64, max_num_batched_tokens=256))
    seqs = [Sequence([i, 1, 2], SamplingParams(max_tokens=4)) for i in range(40)]
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not all(seq.is_finished for seq in seqs):
                for seq in (*scheduler.waiting, *scheduler.running, *seqs):
                    assert len(seq.token_ids) >= seq.num_prompt_tokens == 3
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for seq in seqs:
        scheduler.add(seq)
    run(scheduler)
    for reader in readers:
        reader.join()
    assert not errors
    assert all(seq.num_completion_tokens == 4 for seq in seqs)


# Model runners and engines


def generate_by_hand(scheduler: Scheduler, runner: ModelRunner) -> None:
    while not scheduler.is_finished():
        seqs, is_prefill = scheduler.schedule()
        scheduler.postprocess(seqs, runner.call("run", seqs, is_prefill), is_prefill)


def test_steps_by_hand_answer_as_generate_does(llm: LLM) -> None:
    expected = [output["token_ids"] for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]
    mine = Sequence(PROMPTS[0], GREEDY)
    llm.scheduler.add(mine)
    ids = [llm.add_request(prompt, GREEDY) for prompt in PROMPTS[1:]]
    queued = list(llm.scheduler.waiting)
    assert [seq.seq_id for seq in queued] == [mine.seq_id, *ids]
    assert queued[0] is mine
    generate_by_hand(llm.scheduler, llm.model_runner)
    assert [seq.completion_token_ids for seq in queued] == expected
    assert llm.is_finished()
    assert llm.step() == ([], 0)


def test_a_sequence_added_by_hand_takes_part(llm: LLM) -> None:
    expected = [output["token_ids"] for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]
    seq = Sequence(PROMPTS[0], GREEDY)
    llm.scheduler.add(seq)
    outputs = llm.generate(PROMPTS[1:], GREEDY, use_tqdm=False)
    assert [output["token_ids"] for output in outputs] == expected[1:]
    assert llm.step()[0] == [(seq.seq_id, expected[0])]
    assert (seq.completion_token_ids, seq.is_finished) == (expected[0], True)
    again = Sequence(PROMPTS[1], GREEDY)
    llm.scheduler.add(again)
    assert llm.abort(again.seq_id)
    assert (again.token_ids, again.is_finished) == (PROMPTS[1], False)


def test_an_engine_checks_sequences_by_hand(llm: LLM) -> None:
    assert llm.config.hf_config is not None
    vocab_size = llm.config.hf_config.vocab_size
    for seq in (Sequence([vocab_size]), Sequence([1] * llm.config.max_model_len)):
        with pytest.raises(ValueError, match=r"token|max_model_len"):
            llm.scheduler.add(seq)
        assert seq.num_tokens > 0, "it still has its data"
    llm.scheduler.add(Sequence([1, 2], GREEDY))
    seqs, is_prefill = llm.scheduler.schedule()
    with pytest.raises(ValueError, match="vocabulary"):
        llm.scheduler.postprocess(seqs, [vocab_size], is_prefill)
    with pytest.raises(RuntimeError, match="in use"):
        llm.model_runner._runner.logits([1])
    assert llm.abort(seqs[0].seq_id)


def test_the_views_of_an_engine_end_with_it(tiny_qwen3: str) -> None:
    llm = LLM(tiny_qwen3, num_kvcache_blocks=4, num_threads=1)
    scheduler, runner, seq = llm.scheduler, llm.model_runner, Sequence(PROMPTS[0])
    scheduler.add(seq)
    assert llm.scheduler is scheduler
    scheduler.schedule()
    llm.exit()
    assert (seq.token_ids, seq.block_table) == (PROMPTS[0], [])
    calls: list[Callable[[], object]] = [
        lambda: scheduler.waiting,
        lambda: scheduler.add(seq),
        lambda: scheduler.block_manager.free_block_ids,
        lambda: runner.run([seq], True),
        runner.warmup_model,
        llm.step,
        lambda: llm.add_request([1]),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="exit"):
            call()
    llm.exit()


def test_a_runner_of_its_own(tiny_qwen3: str) -> None:
    llm = LLM(tiny_qwen3, num_kvcache_blocks=4, num_threads=1)
    expected = [output["token_ids"] for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]
    llm.exit()
    settings = Config(tiny_qwen3, num_kvcache_blocks=4, num_threads=1, max_num_batched_tokens=5, eos=-1)
    runner, scheduler = ModelRunner(settings), Scheduler(settings)
    runner.warmup_model()
    seqs = [Sequence(prompt, GREEDY) for prompt in PROMPTS]
    for seq in seqs:
        scheduler.add(seq)
    while not scheduler.is_finished():
        batch, is_prefill = scheduler.schedule()
        input_ids, positions = runner.prepare_prefill(batch) if is_prefill else runner.prepare_decode(batch)
        logits = runner.run_model(input_ids, positions, is_prefill)
        assert (logits.shape, logits.dtype) == ((len(batch), settings.hf_config.vocab_size), np.float32)
        token_ids = runner.run(batch, is_prefill)
        assert logits.argmax(axis=1).tolist() == token_ids
        assert get_context() == Context()
        scheduler.postprocess(batch, token_ids, is_prefill)
    assert [seq.completion_token_ids for seq in seqs] == expected
    calls: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: runner.run([Sequence([1])], True), ValueError),
        (lambda: runner.run(seqs, False), ValueError),
        (lambda: runner.run([1], True), TypeError),  # type: ignore[list-item]
        (lambda: runner.run_model([1], [0], True), ValueError),
        (lambda: runner.call("walk"), AttributeError),
        (lambda: ModelRunner(settings, 1), ValueError),
    ]
    for call, error in calls:
        with pytest.raises(error):
            call()
    runner.exit()
    with pytest.raises(RuntimeError, match="exit"):
        runner.run(seqs, False)


def test_the_size_of_the_cache_is_filled_in(tiny_qwen3: str) -> None:
    settings = Config(tiny_qwen3, max_num_seqs=2, max_model_len=512, num_threads=1)
    with pytest.raises(ValueError, match="num_kvcache_blocks"):
        Scheduler(settings)
    ModelRunner(settings).exit()
    assert settings.num_kvcache_blocks == 4
    assert len(Scheduler(settings).block_manager.blocks) == 4


def prepared(seqs: list[Sequence], *, is_prefill: bool) -> tuple[list[np.ndarray], Context]:
    """What a runner without a model prepares."""
    runner = ModelRunner.__new__(ModelRunner)
    arrays = runner.prepare_prefill(seqs) if is_prefill else runner.prepare_decode(seqs)
    return list(arrays), get_context()


def test_inputs_have_nano_vllms_types() -> None:
    first, second = Sequence(range(10, 21)), Sequence([5, 6])
    first.num_cached_tokens, first.num_scheduled_tokens, first.block_table = 4, 6, [7, 2, 5]
    second.num_scheduled_tokens, second.block_table = 2, [1]
    arrays, context = prepared([first, second], is_prefill=True)
    assert [(array.dtype, array.tolist()) for array in arrays] == [
        (np.int64, [14, 15, 16, 17, 18, 19, 5, 6]),
        (np.int64, [4, 5, 6, 7, 8, 9, 0, 1]),
    ]
    assert (context.is_prefill, context.max_seqlen_q, context.max_seqlen_k, context.context_lens) == (True, 6, 10, None)
    for array, expected in (
        (context.cu_seqlens_q, [0, 6, 8]),
        (context.cu_seqlens_k, [0, 10, 12]),
        (context.slot_mapping, [8, 9, 10, 11, 20, 21, 4, 5]),
        (context.block_tables, [[7, 2, 5], [1, -1, -1]]),
    ):
        assert (array.dtype, array.tolist()) == (np.int32, expected)
    first.num_cached_tokens = 10
    arrays, context = prepared([first, second], is_prefill=False)
    assert [(array.dtype, array.tolist()) for array in arrays] == [(np.int64, [20, 6]), (np.int64, [10, 1])]
    assert (context.slot_mapping.tolist(), context.context_lens.tolist()) == ([22, 5], [11, 2])
    assert context.context_lens.dtype == context.slot_mapping.dtype == context.block_tables.dtype == np.int32
    first.temperature = 0.25
    temperatures = _core.prepare_sample([first, second])
    assert (temperatures.dtype, temperatures.tolist()) == (np.float32, [0.25, 1.0])


def test_graph_batch_sizes_are_nano_vllms() -> None:
    for max_num_seqs in (1, 20, 512, 2000):
        expected = [1, 2, 4, 8, *range(16, min(max_num_seqs, 512) + 1, 16)]
        assert _core.graph_batch_sizes(max_num_seqs) == expected
        for num_seqs in range(1, expected[-1] + 1):
            assert _core.graph_batch_size(expected, num_seqs) == next(n for n in expected if n >= num_seqs)
        assert _core.graph_batch_size(expected, expected[-1] + 1) is None


def test_a_models_config_is_complete(tiny_qwen3: str) -> None:
    config = Config(tiny_qwen3).hf_config
    assert config is not None
    names = "attention_bias head_dim hidden_act max_position_embeddings num_key_value_heads rms_norm_eps rope_theta"
    assert all(getattr(config, name) is not None for name in (*names.split(), "tie_word_embeddings", "vocab_size"))
    assert config.dtype == config.torch_dtype == "float32"
    assert copy.deepcopy(config) == through_pickle(config) == config


def test_any_object_with_nano_vllms_fields_will_do(tiny_qwen3: str, llm: LLM) -> None:
    own = Config(tiny_qwen3, num_kvcache_blocks=4)
    fields = "model max_num_batched_tokens max_num_seqs max_model_len gpu_memory_utilization tensor_parallel_size"
    names = f"{fields} enforce_eager hf_config eos kvcache_block_size num_kvcache_blocks".split()
    runner = ModelRunner(SimpleNamespace(**{name: getattr(own, name) for name in names}))
    assert 1 in runner.graph_bs
    runner.exit()
    params = SimpleNamespace(temperature=0.0, max_tokens=3, ignore_eos=True)
    expected = llm.generate([[1, 2]], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True), use_tqdm=False)
    assert llm.generate([[1, 2]], params, use_tqdm=False) == expected
    assert llm.generate([[1, 2]], [params], use_tqdm=False) == expected


@pytest.mark.parametrize("name", ["tiny_qwen3", "tiny_llama"])
def test_a_model_is_made_from_its_own_config(name: str) -> None:
    """nano-vLLM's own line, with what transformers 5 nests: `rope_parameters` is a dict."""
    config = Config(str(GOLDEN / name)).hf_config
    assert config is not None
    assert isinstance(getattr(config, "rope_parameters", {}), dict)
    model = Qwen3ForCausalLM(config)
    load_model(model, str(GOLDEN / name))
    assert model.get_parameter("model.norm.weight").shape == (config.hidden_size,)


def test_a_scheduler_ignores_a_status_set_by_hand() -> None:
    settings = SimpleNamespace(
        max_num_seqs=4, max_num_batched_tokens=300, eos=-1, kvcache_block_size=256, num_kvcache_blocks=8
    )
    scheduler = Scheduler(settings)
    first, second = Sequence([1, 2, 3]), Sequence(list(range(500)))
    scheduler.add(first)
    scheduler.postprocess(*scheduler.schedule()[:1], [7], True)
    second.status = SequenceStatus.RUNNING
    scheduler.add(second)
    assert second.status == SequenceStatus.WAITING
    scheduler.schedule()
    scheduler.schedule()  # the first is taken back
    assert (list(scheduler.running), list(scheduler.waiting)) == ([first], [second])


def test_a_pickled_sequence_cannot_be_scheduled(llm: LLM) -> None:
    copied = through_pickle(Sequence([1, 2, 3], SamplingParams(temperature=0, max_tokens=2)))
    with pytest.raises(PreconditionError, match="pickled"):
        llm.scheduler.add(copied)
    assert llm.is_finished()


def test_snapshots_can_be_copied(llm: LLM) -> None:
    seq = Sequence([1, 2, 3])
    seq.block_table = [4, 5]
    for snapshot in (through_pickle(seq.block_table), copy.copy(seq.block_table), copy.deepcopy(seq.block_table)):
        snapshot.append(6)
        assert snapshot == [4, 5, 6]
    assert seq.block_table == [4, 5]
    assert copy.copy(llm.scheduler.waiting) == through_pickle(llm.scheduler.waiting) == deque()


def test_prompts_of_other_kinds_are_refused(llm: LLM) -> None:
    for prompts in ({"prompt": "x"}, {"a", "b"}, b"abc"):
        with pytest.raises(TypeError, match="prompts must be"):
            llm.generate(prompts, use_tqdm=False)  # type: ignore[arg-type]
    assert not llm.abort(-1)
    assert not llm.abort(2**64)


def test_an_interrupt_loses_no_answer(llm: LLM) -> None:
    """What finished is with the engine before the interrupt can be raised."""

    class Finished(dict[int, _core.FinishedSequence]):
        def __setitem__(self, key: int, value: _core.FinishedSequence) -> None:
            raise AssertionError("set from Rust, not by Python's code")

    ids = [llm.add_request([1, 2, 3], SamplingParams(temperature=0, max_tokens=1)) for _ in range(4)]
    finished = Finished()
    assert llm._engine.step(finished) == (4, 12)
    assert list(finished) == ids


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_steps_is_an_error_in_the_child(llm: LLM) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with llm._guard:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        try:
            llm.step()
        except RuntimeError as error:
            os._exit(0 if "fork" in str(error) else 1)
        os._exit(2)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
