"""Our package under the names that a suite's reference has."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np

from nanovllm import _core, sampling_params
from nanovllm.engine import block_manager, scheduler
from nanovllm.engine.model_runner import ModelRunner
from nanovllm.engine.sequence import Sequence, SequenceStatus
from nanovllm.utils.context import get_context, reset_context

__all__ = ["block_manager", "model_runner", "sampling_params", "scheduler", "sequence"]


def _through_pickle(seq: Sequence) -> Sequence:
    return pickle.loads(pickle.dumps(seq))  # noqa: S301 - our own bytes


sequence = SimpleNamespace(Sequence=Sequence, SequenceStatus=SequenceStatus, through_pickle=_through_pickle)


class _Runner:
    """The methods of a model runner that need no model."""

    def __init__(self) -> None:
        self.runner = ModelRunner.__new__(ModelRunner)

    def _inputs(self, input_ids: Any, positions: Any) -> dict[str, Any]:
        context = get_context()
        reset_context()
        names = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "slot_mapping", "context_lens")
        inputs = {name: _plain(getattr(context, name)) for name in (*names, "block_tables")}
        return {"input_ids": _plain(input_ids), "positions": _plain(positions)} | inputs

    def prepare_prefill(self, seqs: list[Sequence], _block_size: int) -> dict[str, Any]:
        return self._inputs(*self.runner.prepare_prefill(seqs))

    def prepare_decode(self, seqs: list[Sequence], _block_size: int) -> dict[str, Any]:
        return self._inputs(*self.runner.prepare_decode(seqs))

    def prepare_block_tables(self, seqs: list[Sequence]) -> list[list[int]]:
        return self.runner.prepare_block_tables(seqs).tolist()

    def prepare_sample(self, seqs: list[Sequence]) -> list[float]:
        return self.runner.prepare_sample(seqs).tolist()

    def graph_batch_sizes(self, max_num_seqs: int) -> list[int]:
        return _core.graph_batch_sizes(max_num_seqs)

    def graph_batch_size(self, max_num_seqs: int, num_seqs: int) -> int | None:
        return _core.graph_batch_size(self.graph_batch_sizes(max_num_seqs), num_seqs)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


model_runner = _Runner()
