"""Tiny random checkpoints of every family, drawn when they are needed; transformers' logits of them are committed.

`families/CASE.json` holds a model's config.json, the shape of each of its tensors, and what llama.cpp's converter makes
of it; `families/CASE.npz` what transformers computes. `make_families.py` writes both.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent / "families"
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))
LENGTHS = (1, 17, 300)
"""Tokens in each prompt."""
ROWS = [0, 15, 16, 17, 39, 40, 41, 63, 64, 79, 80, 127, 128, 129, 199, 255, 256, 257, 298, 299]
"""Positions of the longest prompt whose logits are kept: around windows, blocks and chunks."""
TOKENIZER = FOLDER.parent / "tiny_qwen3"
"""Whose tokenizer every model gets; it has fewer entries than any of them."""


def case(name: str) -> dict[str, Any]:
    """Return what `families/NAME.json` holds."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def weights(name: str, shapes: dict[str, list[int]], zero_norms: bool) -> dict[str, np.ndarray]:
    """Draw every tensor, float32, whatever the order of names: nothing is left at the 0 or 1 that hides an error.

    Norm weights and scales of layers lie around 1, or around 0 where a family adds 1 to its norms.
    """
    drawn = {}
    for tensor, shape in shapes.items():
        rng = np.random.default_rng([crc32(name.encode()), crc32(tensor.encode())])
        if tensor.endswith(("_blocks", "_scales")):  # of MXFP4: two elements a byte, and exponents
            low, high = (0, 256) if tensor.endswith("_blocks") else (121, 124)
            drawn[tensor] = rng.integers(low, high, shape, dtype=np.uint8)
            continue
        values = rng.normal(0.0, 0.1, shape)
        if tensor.endswith("sinks"):
            values = 10.0 * values + 2.0  # as much as some scores
        elif "norm" in tensor:
            values = 3.0 * values + (0.0 if zero_norms else 1.0)
        elif "scalar" in tensor or tensor.endswith("scale"):
            values += 1.0
        elif tensor.endswith(("embed_tokens.weight", "lm_head.weight")):
            values *= 5.0  # so that the likeliest token is clearly ahead
        drawn[tensor] = values.astype(np.float32)
    return drawn


def prompt(name: str, length: int, vocab: int) -> np.ndarray:
    """Return the token ids of a prompt, drawn too."""
    return np.random.default_rng([crc32(name.encode()), length]).integers(0, vocab, length)


def write(name: str, directory: Path) -> None:
    """Write the checkpoint into `directory`, which is made: config.json, model.safetensors and a tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    description = case(name)
    (directory / "config.json").write_text(json.dumps(description["config"]), encoding="utf-8")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / file, directory)
    tensors = weights(name, description["tensors"], description["zero_norms"])
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
