"""nano-vLLM's `utils/context.py`."""

from __future__ import annotations

import dataclasses
from typing import Any

from parity import standins

_CONTEXT = standins.loaded()["utils.context"]
FIELDS = {field.name: field.default for field in dataclasses.fields(_CONTEXT.Context)}
set_context = _CONTEXT.set_context
reset_context = _CONTEXT.reset_context


def get() -> dict[str, Any]:
    """The context in force."""
    return dataclasses.asdict(_CONTEXT.get_context())
