"""`utils/context.py`."""

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
"""Names in order, with defaults."""

_STATE = SimpleNamespace(current=dict(FIELDS))


def get() -> dict[str, Any]:
    """The context in force."""
    return _STATE.current


def set_context(*args: Any, **kwargs: Any) -> None:
    """Replaces it: what is not given has its default."""
    _STATE.current = FIELDS | dict(zip(FIELDS, args, strict=False)) | kwargs


def reset_context() -> None:
    """Replaces it by the defaults."""
    _STATE.current = dict(FIELDS)
