"""nano-vLLM's `layers/embed_head.py`, in bfloat16."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from parity import standins
from parity.live.linear import rank_of
from parity.live.tensors import array, tensor

_NANO = standins.loaded()


def _made(name: str, stored: np.ndarray, rank: int, world_size: int) -> Any:
    with rank_of(rank, world_size):
        layer = getattr(_NANO["layers.embed_head"], name)(*stored.shape)
    with torch.no_grad():
        layer.weight.weight_loader(layer.weight, tensor(stored))
    return layer


def embedding(ids: np.ndarray, stored: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    return array(_made("VocabParallelEmbedding", stored, rank, world_size)(tensor(ids)), stored)


def logits(
    x: np.ndarray, stored: np.ndarray, rank: int, world_size: int, cu_seqlens_q: np.ndarray | None
) -> np.ndarray:
    layer = _made("ParallelLMHead", stored, rank, world_size)
    context = _NANO["utils.context"]
    context.set_context(cu_seqlens_q is not None, None if cu_seqlens_q is None else tensor(cu_seqlens_q))
    given: list[torch.Tensor] = []
    try:
        # nano-vLLM hands the logits of a rank to `gather`, which keeps them here instead.
        with (
            patch.object(_NANO["layers.embed_head"].dist, "gather", lambda own, *_: given.append(own)),
            torch.no_grad(),
        ):
            out = layer(tensor(x))
    finally:
        context.reset_context()
    return array(given[0] if given else out, x)
