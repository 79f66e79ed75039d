"""What layers must know of the step in progress, besides their arguments.

nano-vLLM keeps it in a global variable, and so does this module, for programs that call its layers. In the engine, in
Rust, it is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Context", "get_context", "reset_context", "set_context"]


@dataclass(slots=True)
class Context:
    """The ragged batch of one step. Arrays are numpy's or torch's, of integers."""

    is_prefill: bool = False
    """Whether the step computes chunks of prompts; else it computes the newest token of each sequence."""
    cu_seqlens_q: Any = None
    """In prefill, row offsets of the sequences' queries, `[num_seqs + 1]`."""
    cu_seqlens_k: Any = None
    """In prefill, offsets of their keys, cached ones counted, `[num_seqs + 1]`."""
    max_seqlen_q: int = 0
    """In prefill, the most queries of a sequence."""
    max_seqlen_k: int = 0
    """In prefill, the most keys of a sequence."""
    slot_mapping: Any = None
    """The slot in the KV cache of each row, `[rows]`; -1 for none."""
    context_lens: Any = None
    """In decode, the tokens of each sequence, `[num_seqs]`."""
    block_tables: Any = None
    """The blocks of each sequence, `[num_seqs, blocks]`, padded with -1; None where prefill finds nothing cached."""


_context = Context()


def get_context() -> Context:
    """The context last set."""
    return _context


def set_context(
    is_prefill: bool,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    max_seqlen_q: int = 0,
    max_seqlen_k: int = 0,
    slot_mapping: Any = None,
    context_lens: Any = None,
    block_tables: Any = None,
) -> None:
    """Replaces the context; see `Context` for the arguments."""
    global _context  # noqa: PLW0603 - one a process, as nano-vLLM has it
    _context = Context(
        is_prefill, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, slot_mapping, context_lens, block_tables
    )


def reset_context() -> None:
    """Replaces the context with an empty one."""
    global _context  # noqa: PLW0603 - one a process, as nano-vLLM has it
    _context = Context()
