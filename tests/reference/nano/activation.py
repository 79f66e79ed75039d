"""`layers/activation.py`, the gated activation, in float64."""

import numpy as np


def silu_and_mul(x: np.ndarray) -> np.ndarray:
    """`silu(gate) * up`, gate and up side by side in the last dimension."""
    gate, up = np.split(x.astype(np.float64), 2, axis=-1)
    sigmoid = np.exp(-np.logaddexp(0, -gate))
    return (gate * sigmoid * up).astype(x.dtype)
