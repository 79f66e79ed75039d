"""`engine/model_runner.py`: from scheduled sequences to what the model is given."""

from __future__ import annotations

from collections.abc import Sequence as Seqs
from itertools import accumulate
from typing import Any

from .sequence import Sequence


def prepare_prefill(seqs: Seqs[Sequence], block_size: int) -> dict[str, Any]:
    """Inputs for the scheduled tokens of each sequence, one sequence after the other.

    Keys are read from the cache, through block tables, only where some were computed before this step. A sequence
    without blocks (of the warm-up) stores nothing.
    """
    ranges = [range(seq.num_cached_tokens, seq.num_cached_tokens + seq.num_scheduled_tokens) for seq in seqs]
    num_queries = [len(positions) for positions in ranges]
    num_keys = [positions.stop for positions in ranges]
    return {
        "input_ids": [seq[p] for seq, positions in zip(seqs, ranges, strict=True) for p in positions],
        "positions": [p for positions in ranges for p in positions],
        "cu_seqlens_q": list(accumulate(num_queries, initial=0)),
        "cu_seqlens_k": list(accumulate(num_keys, initial=0)),
        "max_seqlen_q": max(num_queries, default=0),
        "max_seqlen_k": max(num_keys, default=0),
        "slot_mapping": [
            slot(seq, p, block_size)
            for seq, positions in zip(seqs, ranges, strict=True)
            if seq.block_table
            for p in positions
        ],
        "context_lens": None,
        "block_tables": prepare_block_tables(seqs) if num_keys != num_queries else None,
    }


def prepare_decode(seqs: Seqs[Sequence], block_size: int) -> dict[str, Any]:
    """Inputs for the newest token of each sequence."""
    return {
        "input_ids": [seq.last_token for seq in seqs],
        "positions": [len(seq) - 1 for seq in seqs],
        "cu_seqlens_q": None,
        "cu_seqlens_k": None,
        "max_seqlen_q": 0,
        "max_seqlen_k": 0,
        "slot_mapping": [slot(seq, len(seq) - 1, block_size) for seq in seqs],
        "context_lens": [len(seq) for seq in seqs],
        "block_tables": prepare_block_tables(seqs),
    }


def slot(seq: Sequence, position: int, block_size: int) -> int:
    """The slot of the cache that keeps a position of a sequence."""
    return seq.block_table[position // block_size] * block_size + position % block_size


def prepare_block_tables(seqs: Seqs[Sequence]) -> list[list[int]]:
    """The block tables, filled up with -1 to the longest."""
    width = max(len(seq.block_table) for seq in seqs)
    return [[*seq.block_table, *[-1] * (width - len(seq.block_table))] for seq in seqs]


def prepare_sample(seqs: Seqs[Sequence]) -> list[float]:
    """The temperatures."""
    return [seq.temperature for seq in seqs]


def graph_batch_sizes(max_num_seqs: int) -> list[int]:
    """The batch sizes that CUDA graphs are captured for."""
    return [1, 2, 4, 8, *range(16, min(max_num_seqs, 512) + 1, 16)]


def graph_batch_size(max_num_seqs: int, num_seqs: int) -> int | None:
    """The one that a decode step runs on, the smallest that holds it.

    None for a step that runs as it is: of more than 512, or of more than the largest, where nano-vLLM fails.
    """
    return min((size for size in graph_batch_sizes(max_num_seqs) if size >= num_seqs), default=None)
