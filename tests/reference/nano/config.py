"""`config.py`: the engine's options, what is derived from the model, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DEFAULTS: dict[str, Any] = {
    "max_num_batched_tokens": 16384,
    "max_num_seqs": 512,
    "max_model_len": 4096,
    "gpu_memory_utilization": 0.9,
    "tensor_parallel_size": 1,
    "enforce_eager": False,
    "hf_config": None,
    "eos": -1,
    "kvcache_block_size": 256,
    "num_kvcache_blocks": -1,
}
"""Options in the order of their positions, after `model`."""


def field_names() -> list[str]:
    """The names of the options in order."""
    return ["model", *DEFAULTS]


def make(model: str, *args: Any, **kwargs: Any) -> SimpleNamespace:
    """The options with their defaults and derived values; AssertionError for what nano-vLLM refuses."""
    given = dict(zip(DEFAULTS, args, strict=False)) | kwargs
    if unknown := given.keys() - DEFAULTS.keys():
        raise TypeError(f"no such option: {sorted(unknown)}")
    options = SimpleNamespace(model=model, **(DEFAULTS | given))
    if not Path(model).is_dir():
        raise AssertionError("the model is a directory")
    if options.kvcache_block_size % 256:
        raise AssertionError("a block is a multiple of 256 tokens")
    if not 1 <= options.tensor_parallel_size <= 8:
        raise AssertionError("1 to 8 GPUs")
    options.hf_config = SimpleNamespace(**json.loads((Path(model) / "config.json").read_text()))
    options.max_model_len = min(options.max_model_len, options.hf_config.max_position_embeddings)
    return options
