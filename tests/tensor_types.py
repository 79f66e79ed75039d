"""The tensor types of GGUF files, and what the engine and the PyPI package `gguf` can do with each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np

from nanovllm import _core

TYPES = _core.ggml_types()
"""By ggml's name: the type's number, elements in a block, bytes in a block, and whether the engine writes it."""
WRITTEN = [name for name, (_, _, _, is_written) in TYPES.items() if is_written]
IN_BLOCKS = {name for name, (_, block, _, _) in TYPES.items() if block > 1}
KNOWN_BY_PACKAGE = [name for name in TYPES if name in gguf.GGMLQuantizationType.__members__]
NUMBERS = {
    name: f"<{name[0].lower()}{size}"
    for name, (_, _, size, _) in TYPES.items()
    if name not in IN_BLOCKS and name != "BF16"
}
"""Types of single numbers that numpy has too: its name of each."""


def _implemented(convert: Callable[..., Any], name: str, data: np.ndarray) -> bool:
    """Whether the package can convert `data` to or from a type that it knows."""
    try:
        convert(data, gguf.GGMLQuantizationType[name])
    except NotImplementedError:
        return False
    return True


READ_BY_PACKAGE = [
    name
    for name in KNOWN_BY_PACKAGE
    if _implemented(gguf.quants.dequantize, name, np.zeros((1, TYPES[name][2]), np.uint8))
]
with np.errstate(all="ignore"):
    WRITTEN_BY_PACKAGE = [
        name
        for name in WRITTEN
        if name in KNOWN_BY_PACKAGE and _implemented(gguf.quants.quantize, name, np.zeros((1, 256), np.float32))
    ]
