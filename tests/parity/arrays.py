"""What the suites of the layers share: arrays drawn for them, and how close two results must be."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from nanovllm import _core
from parity.fixture import LIVE_TOLERANCE, Reference

FLOAT32, FLOAT16, BFLOAT16 = (np.dtype(t) for t in (np.float32, np.float16, ml_dtypes.bfloat16))

Rng = np.random.Generator
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)
"""Random numbers by a seed that hypothesis draws: the shapes are what it should shrink."""


DEVICES = [device for device in _core.device_names() if device != "candle-f32"]
"""The devices of this build, but for one that differs from "candle" only with quantised weights, which layers lack."""


def dtypes(reference: Reference) -> st.SearchStrategy[np.dtype]:
    """Element types; nano-vLLM itself is only right in bfloat16."""
    return st.just(BFLOAT16) if reference.live else st.sampled_from([FLOAT32, FLOAT16, BFLOAT16])


def normal(rng: Rng, shape: tuple[int, ...], dtype: np.dtype, scale: float = 1.0) -> np.ndarray:
    """An array of normal variates, times `scale`."""
    return (scale * rng.standard_normal(shape)).astype(dtype)


def nmse(got: np.ndarray, expected: np.ndarray, least: float = 0.0) -> float:
    """The squares of the differences over those of what is expected, or over `least`: 0 where both are zeros."""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    error, power = ((got - expected) ** 2).sum(), (expected**2).sum()
    return float(error / max(power, least)) if error else 0.0


def energy(x: np.ndarray, weight: np.ndarray) -> float:
    """What the squares of `x @ weight.T` add up to on average over the signs of the values.

    A few such sums may cancel to nearly nothing, and rounding errors are in proportion to their terms.
    """
    x, weight = x.astype(np.float64).reshape(-1, x.shape[-1]), weight.astype(np.float64)
    return float((x**2 @ (weight**2).T).sum())


def check(reference: Reference, kind: str, got: np.ndarray, expected: np.ndarray, least: float = 0.0) -> None:
    """Asserts the same shape and type, and a difference as small as the type and the kind of operation allow.

    The difference counts beside what is expected, or beside results whose squares add up to `least`.
    """
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    # A result of 16 bits is rounded: by at most half of 2**-8 in bfloat16, which squared is far below this.
    allowed = reference.tolerance(kind) if got.dtype == FLOAT32 else LIVE_TOLERANCE
    assert nmse(got, expected, least) <= allowed
