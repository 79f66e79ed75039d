"""Hugging Face checkpoints, read and written with numpy: single or sharded safetensors, float32, float16 or bfloat16.

The format is a length (8 bytes, little-endian), a JSON header and the data; it is read here by hand because numpy has
no bfloat16: those tensors are widened to float32 by their bits, and rounded by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names by transformers and by safetensors."""
ITEM_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


def load_checkpoint(directory: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read weights by name, widened to float32, and the parsed config.json."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    weights: dict[str, np.ndarray] = {}
    for file in files:
        weights |= load_file(directory / file)
    return weights, json.loads((directory / "config.json").read_text())


def load_file(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of one file, widened to float32."""
    file = path.read_bytes()
    data = 8 + int.from_bytes(file[:8], "little")
    weights: dict[str, np.ndarray] = {}
    for name, entry in json.loads(file[8:data]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            weights[name] = _widen(entry["dtype"], file[data + start : data + end]).reshape(entry["shape"])
    return weights


def save_file(weights: Mapping[str, np.ndarray], path: Path, dtype: str = "float32") -> None:
    """Write float32 arrays as `dtype` (one of `DTYPES`), rounding to nearest even."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in weights.items():
        end = offset + array.size * ITEM_SIZES[dtype]
        header[name] = {"dtype": DTYPES[dtype], "shape": array.shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in weights.values():
            file.write(_narrow(array, dtype))


def round_to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Return the upper 16 bits of each float32, rounded to nearest even, as uint16; a NaN stays a (quiet) NaN."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    # Finite values and infinities cannot carry out of 32 bits; NaNs can, and take the other branch.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 bit patterns (uint16)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _widen(dtype: str, data: bytes) -> np.ndarray:
    if dtype == "F32":
        return np.frombuffer(data, dtype="<f4")
    if dtype == "F16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32)
    if dtype == "BF16":
        return widen_bfloat16(np.frombuffer(data, dtype="<u2"))
    raise ValueError(f"unsupported tensor type {dtype}")


def _narrow(array: np.ndarray, dtype: str) -> bytes:
    if dtype == "bfloat16":
        return round_to_bfloat16(array).astype("<u2").tobytes()
    if dtype == "float16":
        return array.astype("<f2").tobytes()
    return array.astype("<f4").tobytes()
