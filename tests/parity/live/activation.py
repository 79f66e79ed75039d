"""nano-vLLM's `layers/activation.py`, in bfloat16."""

import numpy as np

from parity import standins
from parity.live.tensors import array, tensor

_NANO = standins.loaded()


def silu_and_mul(x: np.ndarray) -> np.ndarray:
    return array(_NANO["layers.activation"].SiluAndMul()(tensor(x)), x)
