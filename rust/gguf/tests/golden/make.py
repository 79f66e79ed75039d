"""Writes this folder's .bin files: input.bin (f32) and, for each type, its blocks and their decoded values (f32).

The bytes come from the `gguf` package, an implementation independent of ours: `pip install gguf && python make.py`.
"""

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

TYPES = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]


def blocks() -> np.ndarray:
    rng = np.random.default_rng(0)
    ramp = np.arange(32, dtype=np.float32)
    special = [
        np.zeros(32),
        np.full(32, -0.375),
        ramp - 16,  # both signs, extreme negative
        16 - ramp,  # extreme positive
        np.where(ramp % 2, 1.0, -1.0),  # equal magnitudes: the first one decides
        (ramp - 15.5) * 8.0,  # halves for Q8_0 (scale 124/127 is not a power of two)
        np.append(ramp[:31] / 2, 127.0),  # exact ties for Q8_0
        np.append(-ramp[:31] / 2, -127.0),
        np.append(ramp[:31] / 2 - 7, -8.0),  # exact ties for Q4_0
        np.append(ramp[:31] / 2, 15.0),  # exact ties for Q4_1
        (ramp - 16) * 1e-6,  # subnormal f16 scales
        (ramp - 16) * 1e-9,  # f16 scales that vanish
        (ramp - 16) * 3e3,
        ramp + 1000,  # a minimum far from zero
    ]
    smooth = [rng.normal(0, 10.0**e, 32) for e in range(-4, 4) for _ in range(4)]
    return np.array(special + smooth, dtype=np.float32)


def main() -> None:
    folder = Path(__file__).parent
    x = blocks()
    x.tofile(folder / "input.bin")
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        encoded = quantize(x, kind)
        encoded.tofile(folder / f"{name.lower()}.bin")
        dequantize(encoded, kind).astype(np.float32).tofile(folder / f"{name.lower()}_f32.bin")


if __name__ == "__main__":
    main()
