"""The gated activation of the MLP."""

from typing import Any

from nanovllm import _core
from nanovllm.layers.module import Module


class SiluAndMul(Module):
    """`silu(gate) * up`, where the last dimension holds all of gate and then all of up."""

    def __init__(self, *, device: str = "cpu") -> None:
        self._core = _core.SiluAndMul(device=device)

    def forward(self, x: Any) -> Any:
        """`x [..., 2 n]` to `[..., n]`. Raises ValueError where the last dimension is odd."""
        return self._core.forward(x)
