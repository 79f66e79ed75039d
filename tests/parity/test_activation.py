"""`layers/activation.py`: the gated activation of every shape and type, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.layers.activation import SiluAndMul
from parity import counts
from parity.arrays import DEVICES, FLOAT32, Rng, check, dtypes, normal, rngs
from parity.fixture import Reference


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(
    data=st.data(),
    rng=rngs,
    lead=st.lists(st.integers(1, 9), max_size=3),
    half=st.integers(1, 300),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_silu_and_mul(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, lead: list[int], half: int, scale: float
) -> None:
    x = normal(rng, (*lead, 2 * half), data.draw(dtypes(reference)), scale)
    before = x.copy()
    got = SiluAndMul(device=device)(x)
    check(reference, "elementwise", got, reference.activation.silu_and_mul(x))
    np.testing.assert_array_equal(x, before)


def test_extremes() -> None:
    x = np.array([[-1e4, -100.0, -0.0, 100.0, 1e4, 2.0, 2.0, 2.0, 2.0, 2.0]], FLOAT32)
    np.testing.assert_allclose(SiluAndMul()(x), [[0, 0, 0, 200, 2e4]], atol=1e-30)


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="last dimension of x must be even, got 3"):
        SiluAndMul()(np.zeros((2, 3), np.float32))
