"""`layers/layernorm.py`, the root-mean-square norm, in float64."""

import numpy as np


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """The root-mean-square norm over the last dimension."""
    return _norm(x.astype(np.float64), weight, eps).astype(x.dtype)


def add_rms_norm(x: np.ndarray, residual: np.ndarray, weight: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """The norm of the sum, and the sum; the norm is of the sum as it is before it is rounded."""
    total = x.astype(np.float64) + residual.astype(np.float64)
    return _norm(total, weight, eps).astype(x.dtype), total.astype(x.dtype)


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight.astype(np.float64)
