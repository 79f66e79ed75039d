"""`layers/rotary_embedding.py`: the table, the rotation by it, and the scalings that nano-vLLM lacks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.layers.rotary_embedding import RotaryEmbedding, apply_rotary_emb, get_rope
from parity import counts
from parity.arrays import DEVICES, FLOAT32, Rng, check, dtypes, nmse, normal, rngs
from parity.fixture import Reference
from reference import rope

heads = st.integers(1, 6)
halves = st.integers(1, 70)
bases = st.sampled_from([100.0, 10000.0, 1e6])


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(half=halves, max_position=st.integers(1, 3000), base=bases)
def test_table(reference: Reference, device: str, half: int, max_position: int, base: float) -> None:
    got = RotaryEmbedding(2 * half, 2 * half, max_position, base, device=device).cos_sin_cache
    expected = reference.rotary.cos_sin_cache(2 * half, max_position, base)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype) == ((max_position, 1, 2 * half), FLOAT32)
    # nano-vLLM computes angles in float32, which has steps of 2**-13 at 2048.
    assert nmse(got, expected) <= (1e-7 if reference.live else 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, n=st.integers(1, 20), q_heads=heads, k_heads=heads, half=halves, base=bases)
def test_forward(
    reference: Reference,
    device: str,
    data: st.DataObject,
    rng: Rng,
    n: int,
    q_heads: int,
    k_heads: int,
    half: int,
    base: float,
) -> None:
    dtype, max_position = data.draw(dtypes(reference)), data.draw(st.integers(1, 300))
    positions = rng.integers(0, max_position, n)
    q, k = normal(rng, (n, q_heads, 2 * half), dtype), normal(rng, (n, k_heads, 2 * half), dtype)
    rotary = RotaryEmbedding(2 * half, 2 * half, max_position, base, device=device)
    expected = reference.rotary.rotary_embedding(positions, q, k, rotary.cos_sin_cache)
    for got, want in zip(rotary(positions, q, k), expected, strict=True):
        check(reference, "elementwise", got, want)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, lead=st.lists(st.integers(1, 5), max_size=3), half=halves)
def test_apply_broadcasts(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, lead: list[int], half: int
) -> None:
    x = normal(rng, (*lead, 2 * half), data.draw(dtypes(reference)))
    dropped = data.draw(st.integers(0, len(lead)))
    shape = [data.draw(st.sampled_from([1, n])) for n in lead[dropped:]]
    angles = rng.uniform(0, 6, (*shape, half))
    cos, sin = np.cos(angles).astype(FLOAT32), np.sin(angles).astype(FLOAT32)
    check(
        reference,
        "elementwise",
        apply_rotary_emb(x, cos, sin, device=device),
        reference.rotary.apply_rotary_emb(x, cos, sin),
    )


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "default"},
        {"type": "linear", "factor": 4.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    ],
    ids=lambda scaling: scaling.get("rope_type", "linear"),
)
def test_scaling(scaling: dict[str, object]) -> None:
    """nano-vLLM has none, so the reference is `reference.rope`, which the configurations of checkpoints are held to."""
    config = {"head_dim": 16, "rope_theta": 10000.0, "max_position_embeddings": 256, "rope_scaling": scaling}
    inverse_frequencies, factor = rope.inverse_frequencies(config)
    angles = np.outer(np.arange(256), inverse_frequencies)
    expected = factor * np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    got = get_rope(16, 16, 256, 10000.0, scaling).cos_sin_cache[:, 0]
    assert nmse(got, expected) < 1e-12


def test_get_rope_makes_one() -> None:
    one = get_rope(8, 8, 32, 1e4)
    assert get_rope(8, 8, max_position=32, base=1e4) is one
    assert get_rope(8, 8, 33, 1e4) is not one
    scaled = get_rope(8, 8, 32, 1e4, {"type": "linear", "factor": 2.0})
    assert get_rope(8, 8, 32, 1e4, {"factor": 2.0, "type": "linear"}) is scaled


def test_refusals() -> None:
    with pytest.raises(ValueError, match="rotary_dim must be head_size 8, got 4"):
        RotaryEmbedding(8, 4, 16, 1e4)
    with pytest.raises(ValueError, match="must be even and positive, got 7"):
        RotaryEmbedding(7, 7, 16, 1e4)
    with pytest.raises(ValueError, match="base must be finite and positive, got 0"):
        RotaryEmbedding(8, 8, 16, 0.0)
    with pytest.raises(ValueError, match='rope scaling "dynamic"; supported'):
        get_rope(8, 8, 16, 1e4, {"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(MemoryError):
        RotaryEmbedding(8, 8, 2**60, 1e4)
    rotary, x = RotaryEmbedding(8, 8, 16, 1e4), np.zeros((1, 2, 8), np.float32)
    with pytest.raises(ValueError, match=r"positions\[0\] is 16, the table ends before 16"):
        rotary(np.array([16]), x, x)
    with pytest.raises(ValueError, match="positions must be positions in a sequence, got -1 at index 0"):
        rotary(np.array([-1]), x, x)
    with pytest.raises(TypeError, match="positions must be integers"):
        rotary(np.array([0.5]), x, x)
    with pytest.raises(ValueError, match=r"key must have shape \[1, any, 8\], got \[1, 2, 6\]"):
        rotary(np.array([0]), x, x[..., :6])
    with pytest.raises(ValueError, match=r"cos of shape \[3\] does not broadcast to \[1, 2, 4\]"):
        apply_rotary_emb(x, np.ones(3, np.float32), np.ones(4, np.float32))
