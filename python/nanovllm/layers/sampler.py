"""The sampler chooses tokens from logits."""

from __future__ import annotations

import secrets
from typing import Any

from nanovllm import _core
from nanovllm.layers.module import Module


class Sampler(Module):
    """Draws one token for each row, from the softmax of logits / temperature; temperature 0 takes the likeliest.

    As in nano-vLLM, the token is the one with the largest quotient of probability and an exponential variate. Here the
    variate is a function of the seed, the number of rows drawn before and the token (`_core.exponential_noise`), so
    samplers of the same seed draw the same tokens. Without a seed, the system gives a random one.
    """

    def __init__(self, seed: int | None = None, *, device: str = "cpu") -> None:
        self.seed = secrets.randbits(64) if seed is None else seed
        self._rows = 0
        self._device = device

    def forward(self, logits: Any, temperatures: Any) -> Any:
        """Token ids, int64 `[n]`, for `logits [n, vocab]` and `temperatures [n]`.

        Raises ValueError for a temperature that is negative or not finite. NaN logits are never chosen, unless a row
        has no others: then the token is 0.
        """
        tokens = _core.sample(logits, temperatures, self.seed, self._rows, device=self._device)
        self._rows += len(tokens)
        return tokens
