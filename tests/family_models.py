"""The tiny models of every family in each format, and how far their logits are from transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from golden import family_cases
from golden.family_cases import CASES, LENGTHS
from nanovllm import _core
from runners import model_runner

__all__ = ["CASES", "FORMATS", "LENGTHS", "FamilyModel", "expected", "make"]

FORMATS = ("hugging_face", "gguf_f32", "gguf_q8_0")
"""What each model is read from: safetensors, and GGUF files made of them."""


class FamilyModel:
    """A tiny model in one format on one device."""

    def __init__(self, name: str, kind: str, path: Path, **options: Any) -> None:
        self.name = name
        self.weights = "q8_0" if kind == "gguf_q8_0" else "float32"
        self.runner: _core.ModelRunner = model_runner(path, kv_cache_dtype="float32", num_kvcache_blocks=8, **options)

    def error(self, length: int, sizes: Sequence[int] | None = None) -> float:
        """The largest error of a logit for the prompt of this length, run in chunks of these sizes.

        Raises AssertionError where the likeliest token of a row is another than transformers'.
        """
        ids, logits, greedy, rows = expected(self.name, self.weights, length)
        ours = self.runner.logits(ids, sizes)
        ahead = np.sort(ours, axis=-1)
        clear = ahead[:, -1] - ahead[:, -2] > 0.02  # of a near tie either may be ahead
        assert (ours.argmax(axis=-1) == greedy)[clear].all()
        assert clear.mean() > 0.8
        return float(np.abs(ours[rows] - logits).max())


def expected(name: str, weights: str, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """A prompt, transformers' logits, its likeliest token after each row, and the rows whose logits are kept."""
    description = family_cases.case(name)
    ids = family_cases.prompt(name, length, description["vocab_size"])
    with np.load(family_cases.FOLDER / f"{name}.npz") as arrays:
        logits, greedy = arrays[f"{weights}_logits_{length}"], arrays[f"{weights}_greedy_{length}"]
    rows = family_cases.ROWS if length == max(LENGTHS) else list(range(length))
    return ids, logits, greedy, rows


def make(name: str, directory: Path) -> dict[str, Path]:
    """Write the model `name` into `directory` in every format that it has; return its paths."""
    paths = {"hugging_face": directory / name}
    family_cases.write(name, paths["hugging_face"])
    if not family_cases.case(name)["refused_by_gguf"]:
        for kind in FORMATS[1:]:
            paths[kind] = directory / f"{name}.{kind}.gguf"
            mix = kind.removeprefix("gguf_").upper()
            command = ["nanovllm", "quantize", str(paths["hugging_face"]), str(paths[kind]), "--type", mix]
            if _core.run_command(command, Path) != 0:
                raise RuntimeError(f"{name} cannot be written as {mix}")
    return paths
