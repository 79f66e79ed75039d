"""nano-vLLM's `layers/layernorm.py`, in bfloat16: in float32 it overwrites its arguments, and its sum is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import standins
from parity.live.tensors import array, parameter, tensor

_NANO = standins.loaded()


def _norm(weight: np.ndarray, eps: float) -> Any:
    norm = _NANO["layers.layernorm"].RMSNorm(len(weight), eps)
    parameter(norm, "weight", weight)
    return norm


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return array(_norm(weight, eps)(tensor(x)), x)


def add_rms_norm(x: np.ndarray, residual: np.ndarray, weight: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    out, total = _norm(weight, eps)(tensor(x), tensor(residual))
    return array(out, x), array(total, x)
