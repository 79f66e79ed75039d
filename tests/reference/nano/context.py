"""`utils/context.py`: what layers must know of the step in progress."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

FIELDS = {
    "is_prefill": False,
    "cu_seqlens_q": None,
    "cu_seqlens_k": None,
    "max_seqlen_q": 0,
    "max_seqlen_k": 0,
    "slot_mapping": None,
    "context_lens": None,
    "block_tables": None,
}
"""The names of the context's fields in order, with their defaults."""

_STATE = SimpleNamespace(current=dict(FIELDS))


def get() -> dict[str, Any]:
    """The context in force."""
    return _STATE.current


def set_context(*args: Any, **kwargs: Any) -> None:
    """Replaces the context. A field that is not given has its default."""
    _STATE.current = FIELDS | dict(zip(FIELDS, args, strict=False)) | kwargs


def reset_context() -> None:
    """Replaces the context by one of defaults."""
    _STATE.current = dict(FIELDS)
