"""nano-vLLM's `config.py`."""

from __future__ import annotations

import dataclasses
from typing import Any

from parity import standins

_NANO = standins.loaded()
_CONFIG = _NANO["config"].Config
DEFAULTS = {field.name: field.default for field in dataclasses.fields(_CONFIG) if field.name != "model"}


def field_names() -> list[str]:
    """The names of the options in order."""
    return [field.name for field in dataclasses.fields(_CONFIG)]


def make(model: str, *args: Any, **kwargs: Any) -> Any:
    """The options with their defaults and derived values."""
    with _NANO.swapped():  # which also silences the warnings of transformers
        return _CONFIG(model, *args, **kwargs)
