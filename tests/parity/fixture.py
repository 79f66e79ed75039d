"""What a parity suite is held to: the model of nano-vLLM in `reference.nano`, or nano-vLLM itself."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

TOLERANCES = {"elementwise": 1e-10, "linear": 1e-9, "attention": 1e-9}
"""Normalised mean square error allowed between float32 results, by kind of operation."""
LIVE_TOLERANCE = 1e-4
"""The same beside nano-vLLM itself, which computes in bfloat16."""


class Reference:
    """Modules by nano-vLLM's file names, imported when first asked for: `reference.scheduler`, `reference.linear` ...

    Each is `reference.nano.NAME` (plain Python and numpy) or, given a checkout, `parity.live.NAME`, which has the same
    functions and classes and calls nano-vLLM's own code.
    """

    def __init__(self, checkout: Path | None) -> None:
        self.live = checkout is not None
        if checkout is not None:
            from parity import standins  # needs torch

            standins.load(checkout)

    def __getattr__(self, name: str) -> ModuleType:
        module = f"parity.live.{name}" if self.live else f"reference.nano.{name}"
        # Looked for before it is imported, because hypothesis and copy probe for attributes of their own.
        if name.startswith("_") or importlib.util.find_spec(module) is None:
            raise AttributeError(f"there is no module {module}")
        return importlib.import_module(module)

    def tolerance(self, kind: str) -> float:
        """The error allowed for results of `kind`: "elementwise", "linear" or "attention"."""
        return LIVE_TOLERANCE if self.live else TOLERANCES[kind]
