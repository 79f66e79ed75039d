"""Arrays to nano-vLLM's tensors and back: what is not float32 crosses as bfloat16."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch


def tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with the array's values, of its type if it has integers, else bfloat16."""
    if np.issubdtype(array.dtype, np.integer):
        return torch.from_numpy(array.copy())
    return torch.from_numpy(array.astype(np.float32)).bfloat16()


def array(tensor: torch.Tensor, like: np.ndarray) -> np.ndarray:
    """An array of the tensor's values, of the type of `like`."""
    return tensor.detach().float().numpy().astype(like.dtype)


def write(target: np.ndarray, tensor: torch.Tensor) -> None:
    """Copies a tensor's values into an array."""
    target[...] = array(tensor, target)


def parameter(module: Any, name: str, values: np.ndarray) -> None:
    """Sets a parameter."""
    getattr(module, name).data = tensor(values)


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
