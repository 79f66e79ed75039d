"""nano-vLLM's `engine/model_runner.py`: its methods, on a runner without a model."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import torch

from parity import standins

_NANO = standins.loaded()
_RUNNER = _NANO["engine.model_runner"].ModelRunner
_CONTEXT = _NANO["utils.context"]


def _runner(block_size: int) -> Any:
    runner = object.__new__(_RUNNER)
    runner.block_size = block_size
    return runner


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


def _inputs(input_ids: torch.Tensor, positions: torch.Tensor) -> dict[str, Any]:
    context = _CONTEXT.get_context()
    _CONTEXT.reset_context()
    names = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "slot_mapping", "context_lens")
    inputs = {name: _plain(getattr(context, name)) for name in (*names, "block_tables")}
    return {"input_ids": input_ids.tolist(), "positions": positions.tolist()} | inputs


def prepare_prefill(seqs: list[Any], block_size: int) -> dict[str, Any]:
    """Inputs for the scheduled tokens of each sequence."""
    return _inputs(*_runner(block_size).prepare_prefill(seqs))


def prepare_decode(seqs: list[Any], block_size: int) -> dict[str, Any]:
    """Inputs for the newest token of each sequence."""
    return _inputs(*_runner(block_size).prepare_decode(seqs))


def prepare_block_tables(seqs: list[Any]) -> list[list[int]]:
    """The block tables, filled up with -1."""
    return _runner(0).prepare_block_tables(seqs).tolist()


def prepare_sample(seqs: list[Any]) -> list[float]:
    """The temperatures."""
    return _runner(0).prepare_sample(seqs).tolist()


def graph_batch_sizes(max_num_seqs: int) -> list[int]:
    """The batch sizes of a capture that records nothing."""
    hidden_size = 1
    runner = _runner(256)
    hf_config = SimpleNamespace(hidden_size=hidden_size)
    runner.config = SimpleNamespace(hf_config=hf_config, max_num_seqs=max_num_seqs, max_model_len=256)
    runner.model = lambda input_ids, _: torch.zeros(len(input_ids), hidden_size)
    cuda = _NANO["engine.model_runner"].torch.cuda
    cuda.CUDAGraph = lambda: SimpleNamespace(pool=lambda: "pool")
    cuda.graph = lambda _graph, _pool: contextlib.nullcontext()
    runner.capture_cudagraph()
    return runner.graph_bs
