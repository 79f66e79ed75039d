"""Fixtures and helpers of the tests that use sequences, block managers, schedulers and runners as programs do."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nanovllm import SamplingParams
from nanovllm.engine.scheduler import Scheduler
from nanovllm.engine.sequence import Sequence

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
    """What a scheduler is made from, with some settings changed: eight blocks of four tokens, and no end token."""
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
    """Takes steps until everything is finished, all of whose tokens are the same."""
    while not scheduler.is_finished():
        seqs, is_prefill = scheduler.schedule()
        scheduler.postprocess(seqs, [token_id] * len(seqs), is_prefill)


def held() -> Sequence:
    """A sequence that a scheduler has; it keeps that scheduler alive."""
    scheduler, seq = Scheduler(config()), Sequence([1, 2, 3])
    scheduler.add(seq)
    seq.scheduler = scheduler  # type: ignore[attr-defined]
    return seq
