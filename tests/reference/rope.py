"""Rotary position embedding (Su et al. 2021): inverse frequencies under every scaling scheme the package supports.

Each scheme gives `(inv_freq [head_dim / 2], attention_factor)`; cosines and sines are multiplied by the factor.
Formulas: linear, Chen et al. 2023 (position interpolation); dynamic, NTK-aware scaling recomputed for the sequence
length; YaRN, Peng et al. 2023, sections 3.2 and 3.4; llama3, the frequency bands of the Llama 3.1 release.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Config = dict[str, Any]


def rope_parameters(config: Config) -> dict[str, Any]:
    """Return the rotary settings of a config.json, as transformers 5 or 4 writes it, in one flat dict.

    The result always has `rope_type` and `rope_theta`.
    """
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    parameters.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    # "type" is the name older checkpoints use.
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    return parameters


def head_dim(config: Config) -> int:
    """Width of one attention head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def inverse_frequencies(config: Config, seq_len: int | None = None) -> tuple[np.ndarray, float]:
    """Compute inverse frequencies `[head_dim / 2]` in float64, and the factor on cosines and sines.

    `seq_len` matters to the dynamic scheme alone. Raises ValueError for a scheme that is not known.
    """
    parameters = rope_parameters(config)
    width, theta = head_dim(config), parameters["rope_theta"]
    scheme = parameters["rope_type"]
    if scheme == "default":
        return _plain(theta, width), 1.0
    if scheme == "linear":
        return _plain(theta, width) / parameters["factor"], 1.0
    if scheme == "dynamic":
        return _dynamic(theta, width, parameters, config["max_position_embeddings"], seq_len), 1.0
    if scheme == "llama3":
        return _llama3(_plain(theta, width), parameters), 1.0
    if scheme == "yarn":
        return _yarn(theta, width, parameters, config["max_position_embeddings"])
    raise ValueError(f"unknown rope_type {scheme!r}")


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotate `x [n, heads, head_dim]` by `cos`, `sin` `[n, head_dim / 2]`; dimension i pairs with i + head_dim / 2."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _plain(theta: float, width: int) -> np.ndarray:
    return 1.0 / theta ** (np.arange(0, width, 2) / width)


def _dynamic(theta: float, width: int, p: dict[str, Any], trained: int, seq_len: int | None) -> np.ndarray:
    length = max(seq_len or trained, trained)
    stretch = p["factor"] * length / trained - (p["factor"] - 1)
    return _plain(theta * stretch ** (width / (width - 2)), width)


def _llama3(plain: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    low, high = p["low_freq_factor"], p["high_freq_factor"]
    turns = p["original_max_position_embeddings"] * plain / (2 * math.pi)  # rotations over the trained context
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return plain * keep + plain / p["factor"] * (1.0 - keep)


def _yarn(theta: float, width: int, p: dict[str, Any], max_position: int) -> tuple[np.ndarray, float]:
    trained = p.get("original_max_position_embeddings") or max_position
    factor = p["factor"]

    def dimension(turns: float) -> float:  # the pair that makes this many rotations over the trained context
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(p.get("beta_fast") or 32), dimension(p.get("beta_slow") or 1)
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001
    interpolate = np.clip((np.arange(width // 2) - low) / (high - low), 0.0, 1.0)
    plain = _plain(theta, width)
    return plain / factor * interpolate + plain * (1.0 - interpolate), _yarn_attention_factor(p, factor)


def _yarn_attention_factor(p: dict[str, Any], factor: float) -> float:
    if p.get("attention_factor") is not None:
        return p["attention_factor"]

    def magnitude(scale: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if p.get("mscale") and p.get("mscale_all_dim"):
        return magnitude(p["mscale"]) / magnitude(p["mscale_all_dim"])
    return magnitude()
