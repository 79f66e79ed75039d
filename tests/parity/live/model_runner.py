"""nano-vLLM's `engine/model_runner.py`: its methods, on a runner without a model."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, ClassVar

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


class _Graph:
    """A CUDA graph that records nothing, and says when it is replayed."""

    replayed: ClassVar[list[_Graph]] = []

    def pool(self) -> None:
        """nano-vLLM asks the first graph for its memory, to share it with the others."""

    def replay(self) -> None:
        """Notes that nano-vLLM chose this graph."""
        self.replayed.append(self)


class _Model:
    """A model whose hidden states and logits are one zero for each row."""

    def __call__(self, input_ids: torch.Tensor, _positions: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(input_ids), 1)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the hidden states, which stand for logits."""
        return hidden_states


def _captured(max_num_seqs: int) -> Any:
    runner = _runner(256)
    runner.enforce_eager, runner.model = False, _Model()
    hf_config = SimpleNamespace(hidden_size=1)
    runner.config = SimpleNamespace(hf_config=hf_config, max_num_seqs=max_num_seqs, max_model_len=256)
    cuda = _NANO["engine.model_runner"].torch.cuda
    cuda.CUDAGraph, cuda.graph = _Graph, lambda _graph, _pool: contextlib.nullcontext()
    runner.capture_cudagraph()
    return runner


def graph_batch_sizes(max_num_seqs: int) -> list[int]:
    """The batch sizes that graphs are captured for."""
    return _captured(max_num_seqs).graph_bs


def graph_batch_size(max_num_seqs: int, num_seqs: int) -> int | None:
    """The size of the graph that a decode step replays, if any."""
    runner = _captured(max_num_seqs)
    ids = torch.zeros(num_seqs, dtype=torch.int64)
    row = torch.zeros(num_seqs, dtype=torch.int32)
    _CONTEXT.set_context(False, slot_mapping=row, context_lens=row, block_tables=row[:, None])
    _Graph.replayed.clear()
    with contextlib.suppress(StopIteration):  # it finds no graph of that size
        runner.run_model(ids, ids, is_prefill=False)
    _CONTEXT.reset_context()
    return next((size for size, graph in runner.graphs.items() if graph in _Graph.replayed), None)
