"""The root-mean-square norm, with and without a residual."""

from typing import Any

import numpy as np

from nanovllm import _core
from nanovllm.layers.module import Module, Parameter


class RMSNorm(Module):
    """`x / sqrt(mean(x**2) + eps) * weight` over the last dimension (Zhang and Sennrich 2019).

    `weight` has shape `[hidden_size]` and is ones at first. ValueError for an `eps` that is negative or not finite.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6, *, device: str = "cpu") -> None:
        self.eps = eps
        self.weight = Parameter([hidden_size], None, tp_dim=None, tp_rank=0, tp_size=1)
        self.weight.data = np.ones(hidden_size, np.float32)
        self._core = _core.RMSNorm(eps, device=device)

    def rms_forward(self, x: Any) -> Any:
        """The norm of `x [..., hidden_size]`."""
        return self._core.forward(x, self.weight)

    def add_rms_forward(self, x: Any, residual: Any) -> tuple[Any, Any]:
        """The norm of `x + residual`, and that sum, each `[..., hidden_size]`."""
        return self._core.add_forward(x, residual, self.weight)

    def forward(self, x: Any, residual: Any = None) -> Any:
        """The norm of `x [..., hidden_size]`; with a residual, the norm of the sum of both, and the sum.

        New arrays of the type of `x`: neither argument is written to, where nano-vLLM overwrites float32 ones.
        """
        return self.rms_forward(x) if residual is None else self.add_rms_forward(x, residual)
