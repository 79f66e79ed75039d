"""Our package under the names that a suite's reference has."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

from nanovllm.engine.sequence import Sequence, SequenceStatus

from nanovllm import sampling_params
from nanovllm.engine import block_manager, scheduler

__all__ = ["block_manager", "sampling_params", "scheduler", "sequence"]


def _through_pickle(seq: Sequence) -> Sequence:
    return pickle.loads(pickle.dumps(seq))  # noqa: S301 - our own bytes


sequence = SimpleNamespace(Sequence=Sequence, SequenceStatus=SequenceStatus, through_pickle=_through_pickle)
