"""Schedulers as nano-vLLM's programs use them: what they hand out, refuse and take back."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine_faces import class_attributes, config, held, run
from nanovllm import SamplingParams
from nanovllm.engine.block_manager import BlockManager
from nanovllm.engine.scheduler import Scheduler
from nanovllm.engine.sequence import Sequence, SequenceStatus
from nanovllm.exceptions import PreconditionError

__all__ = ["class_attributes"]
"""The fixture that every test here runs under."""


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
    scheduler.schedule()  # takes back the step before it, which was not booked
    assert (list(scheduler.running), list(scheduler.waiting)) == ([first], [second])
