"""Root-mean-square norm, with and without a residual."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanovllm import _core


class RMSNorm:
    """`x / sqrt(mean(x**2) + eps) * weight` over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, hidden_size: int, eps: float = 1e-6, *, device: str = "cpu") -> None:
        self.eps = eps
        self._core = _core.RMSNorm(hidden_size, eps, device=device)

    @property
    def weight(self) -> NDArray[np.float32]:
        """A copy of the weight, float32 `[hidden_size]`; ones at first. Assigning an array replaces it."""
        return self._core.weight

    @weight.setter
    def weight(self, value: Any) -> None:
        self._core.weight = value

    def rms_forward(self, x: Any) -> Any:
        """The norm of `x [..., hidden_size]`."""
        return self._core.forward(x)

    def add_rms_forward(self, x: Any, residual: Any) -> tuple[Any, Any]:
        """The norm of `x + residual`, and that sum."""
        return self._core.add_forward(x, residual)

    def forward(self, x: Any, residual: Any = None) -> Any:
        """The norm of `x [..., hidden_size]`; with a residual, the norm of the sum of both, and the sum.

        New arrays of the type of `x`: neither argument is written to, where nano-vLLM overwrites float32 ones.
        """
        return self.rms_forward(x) if residual is None else self.add_rms_forward(x, residual)

    __call__ = forward
