"""`layers/layernorm.py`: the norm of every shape and type, with and without a residual, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.layers.layernorm import RMSNorm
from parity import counts
from parity.arrays import DEVICES, Rng, check, dtypes, normal, rngs
from parity.fixture import Reference

shapes = st.tuples(st.lists(st.integers(1, 9), max_size=3), st.integers(1, 400)).map(lambda s: (*s[0], s[1]))
epsilons = st.sampled_from([1e-6, 1e-5, 0.1])


def make(device: str, weight: np.ndarray, eps: float) -> RMSNorm:
    norm = RMSNorm(len(weight), eps, device=device)
    norm.weight.data = weight
    return norm


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, shape=shapes, eps=epsilons, scale=st.sampled_from([1e-3, 1.0, 100.0]))
def test_without_a_residual(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, shape: tuple[int, ...], eps: float, scale: float
) -> None:
    dtype = data.draw(dtypes(reference))
    x, weight = normal(rng, shape, dtype, scale), normal(rng, shape[-1:], dtype)
    before = x.copy()
    check(reference, "elementwise", make(device, weight, eps)(x), reference.layernorm.rms_norm(x, weight, eps))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, shape=shapes, eps=epsilons, scale=st.sampled_from([1e-3, 1.0, 100.0]))
def test_with_a_residual(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, shape: tuple[int, ...], eps: float, scale: float
) -> None:
    dtype = data.draw(dtypes(reference))
    x, weight = normal(rng, shape, dtype), normal(rng, shape[-1:], dtype)
    residual = normal(rng, shape, dtype, scale)
    before = x.copy(), residual.copy()
    got = make(device, weight, eps)(x, residual)
    for ours, expected in zip(got, reference.layernorm.add_rms_norm(x, residual, weight, eps), strict=True):
        check(reference, "elementwise", ours, expected)
    # nano-vLLM overwrites arguments of float32, and returns the norm where the sum should be.
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(residual, before[1])


def test_the_weight_is_ones_at_first() -> None:
    norm = RMSNorm(3)
    assert norm.eps == 1e-6
    assert norm.weight.shape == (3,)
    np.testing.assert_array_equal(norm.weight.data, np.ones(3, np.float32))


def test_refusals() -> None:
    norm = RMSNorm(4)
    x = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="last dimension of x must be 4, as the weight's, got 3"):
        norm(x[:, :3])
    with pytest.raises(ValueError, match=r"same shape, got \[2, 4\] and \[1, 4\]"):
        norm(x, x[:1])
    with pytest.raises(ValueError, match="eps must be finite and not negative, got -1"):
        RMSNorm(4, -1.0)
    with pytest.raises(ValueError, match="device must be"):
        RMSNorm(4, device="abacus")
