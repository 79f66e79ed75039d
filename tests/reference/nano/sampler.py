"""`layers/sampler.py`, in float64 where nano-vLLM has float32, the noise an argument."""

import numpy as np


def sample(logits: np.ndarray, temperatures: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The tokens `[n]` with the largest quotient of probability and noise, an exponential variate of at least 1e-10.

    A temperature of 0, which nano-vLLM does not know, takes the likeliest token.
    """
    return np.argmax(scores(logits, temperatures, noise), axis=-1)


def scores(logits: np.ndarray, temperatures: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The logarithms of those quotients, up to a constant for each row: `[n, vocab]`."""
    logits, temperatures = logits.astype(np.float32), temperatures.astype(np.float32)
    drawn = temperatures > 0
    divisors = np.where(drawn, temperatures, np.float32(1))
    noise = np.where(drawn[:, None], np.maximum(noise, 1e-10), 1.0)
    return (logits / divisors[:, None]).astype(np.float64) - np.log(noise)
