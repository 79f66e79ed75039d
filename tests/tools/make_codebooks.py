"""Writes the codebooks of the IQ formats, from the tables of the PyPI package `gguf`, for `rust/gguf` to include.

A codebook is a list of points, each of four or eight digits; a digit chooses one of a few magnitudes. Read with the
first digit as the least significant, the points ascend, so a codebook is a set of numbers: it is stored as a bitmap in
which bit `n` (of byte `n // 8`, from the lowest) says whether the point of number `n` belongs to it.

    python tests/tools/make_codebooks.py
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import _type_traits

CODEBOOKS = Path(__file__).parents[2] / "rust/gguf/src/quant/codebooks"
NAMES = ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")  # IQ1_M uses IQ1_S's


def bitmap(name: str) -> bytes:
    """The codebook of a type, encoded."""
    traits = _type_traits[GGMLQuantizationType[name]]
    traits.init_grid()
    points = traits.grid.reshape(traits.grid_shape)
    magnitudes = np.array(traits.grid_map, np.float32)
    digits = (points[..., None] == magnitudes).argmax(-1)
    assert (magnitudes[digits] == points).all()
    base, length = len(magnitudes), points.shape[1]
    numbers = digits @ base ** np.arange(length)
    assert (np.diff(numbers) > 0).all(), f"{name} does not ascend"
    members = np.zeros(base**length, np.uint8)
    members[numbers] = 1
    return np.packbits(members, bitorder="little").tobytes()


if __name__ == "__main__":
    CODEBOOKS.mkdir(exist_ok=True)
    for name in NAMES:
        (CODEBOOKS / f"{name.lower()}.bin").write_bytes(bitmap(name))
