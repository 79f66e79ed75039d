"""nano-vLLM's `engine/sequence.py`."""

from __future__ import annotations

import pickle
from typing import Any

from parity import standins

_NANO = standins.loaded()
Sequence = _NANO["engine.sequence"].Sequence
SequenceStatus = _NANO["engine.sequence"].SequenceStatus


def through_pickle(seq: Any) -> Any:
    """The sequence that another process makes of a pickle."""
    with _NANO.swapped():
        return pickle.loads(pickle.dumps(seq))  # noqa: S301 - our own bytes
