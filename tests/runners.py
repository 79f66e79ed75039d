"""What tests that look at logits share: a model without an engine, and the instruction sets to run it on."""

from __future__ import annotations

import os
from typing import Any

import pytest

from nanovllm import _core
from nanovllm.config import Config

INSTRUCTION_SETS = [
    pytest.param(name, marks=pytest.mark.skipif(not here, reason=f"this machine does not have {name}"))
    for name, here in _core.instruction_sets().items()
]
"""The CPU device's instruction sets as parameters of a test or a fixture; those this machine lacks are skipped."""


def model_runner(path: str | os.PathLike[str], **options: Any) -> _core.ModelRunner:
    """The model at `path` with a KV cache for one sequence; `options` are fields of `Config`."""
    return _core.ModelRunner(Config(os.fspath(path), **{"max_num_seqs": 1} | options))
