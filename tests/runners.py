"""A model on its own, for tests that look at logits."""

from __future__ import annotations

import os
from typing import Any

from nanovllm import _core
from nanovllm.config import Config


def model_runner(path: str | os.PathLike[str], **options: Any) -> _core.ModelRunner:
    """The model at `path` with a KV cache for one sequence; `options` are fields of `Config`."""
    return _core.ModelRunner(Config(os.fspath(path), **{"max_num_seqs": 1} | options))
