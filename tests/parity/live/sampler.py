"""nano-vLLM's `layers/sampler.py`, its random numbers answered by the noise that is given."""

from unittest.mock import patch

import numpy as np
import torch

from parity import standins
from reference.nano.sampler import scores

__all__ = ["sample", "scores"]

_NANO = standins.loaded()


def sample(logits: np.ndarray, temperatures: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Takes the tokens that the noise decides on. Temperatures must not be 0, which nano-vLLM does not know."""

    def given(tensor: torch.Tensor, _rate: float) -> torch.Tensor:
        return tensor.copy_(torch.from_numpy(noise))

    with patch.object(torch.Tensor, "exponential_", given):
        tokens = _NANO["layers.sampler"].Sampler()(
            torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(temperatures)
        )
    return tokens.numpy()
