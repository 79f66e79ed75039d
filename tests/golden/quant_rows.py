"""Rows to quantise, the same on every machine: only integers, exact arithmetic and IEEE division make them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 16, 256

Rows = NDArray[np.float32]


def uniform(seed: int, *shape: int) -> NDArray[np.float64]:
    """Multiples of 2**-24 in [-1, 1), from the raw stream of Philox, which NumPy keeps."""
    raw = np.random.Philox(key=seed).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(39)).astype(np.float64) * 2.0**-24 - 1.0).reshape(shape)


def normal(seed: int) -> NDArray[np.float64]:
    """Sums of twelve uniform numbers, scaled to unit variance: nearly normal, at most 6 in magnitude."""
    return uniform(seed, ROWS, COLUMNS, 12).sum(-1) / 2


def drawn_rows() -> dict[str, Rows]:
    """Rows by kind, `[16, 256]` each."""
    small = normal(1) * 0.02
    flat = uniform(2, ROWS, COLUMNS)
    shares = (uniform(3, ROWS, COLUMNS) + 1) / 2
    groups = np.arange(COLUMNS) // 16
    rows = {
        "normal": small,
        "uniform": flat,
        "heavy_tailed": normal(4) / np.maximum(shares, 2.0**-6),
        "outliers": np.where(shares < 1 / 64, 40, 1) * normal(5),
        "positive": 1 + 0.25 * flat,
        "negative": -3 + 0.5 * normal(6),
        "constant": np.repeat(flat[:, :1], COLUMNS, axis=1),
        "zeros": np.zeros((ROWS, COLUMNS)),
        "sparse": np.where(shares < 0.9, 0, normal(7)),
        "scales": normal(8) * np.exp2(groups % 11 - 5),
        "tiny": normal(9) * 2.0**-16,
        "huge": normal(10) * 2.0**11,
        "ternary": np.sign(np.round(flat * 1.3)) * 0.4375,
        "one_value": np.where(np.arange(COLUMNS) == 77, flat, 0),
    }
    return {kind: values.astype(np.float32) for kind, values in rows.items()}


def real_rows() -> Rows:
    """Rows of the demo model's weights, `[64, 256]`."""
    with np.load(Path(__file__).with_name("quant_real_rows.npz")) as stored:
        return stored["rows"].astype(np.float32)


def all_rows() -> dict[str, Rows]:
    """Drawn and real rows by kind."""
    return drawn_rows() | {"real": real_rows()}


def nmse(rows: Rows, back: Rows) -> float:
    """The squared error over the squared magnitude; 0 for exact zeros."""
    error, energy = (float(np.sum(np.square(x.astype(np.float64)))) for x in (rows.ravel() - back.ravel(), rows))
    return error / energy if energy else error
