"""`layers/sampler.py`: exactly, given the noise, and in distribution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import _core
from nanovllm.layers.sampler import Sampler
from parity import counts
from parity.arrays import DEVICES, FLOAT32, Rng, dtypes, normal, rngs
from parity.fixture import Reference


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, rows=st.integers(1, 6), vocab=st.integers(1, 400), seed=st.integers(0, 2**64 - 1))
def test_the_same_noise_gives_the_same_tokens(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, rows: int, vocab: int, seed: int
) -> None:
    sampler = Sampler(seed, device=device)
    drawn = 0
    for _ in range(2):  # the second call draws from where the first ended
        logits = normal(rng, (rows, vocab), data.draw(dtypes(reference)), scale=3.0)
        choices = [0.1, 0.6, 1.0, 2.0] if reference.live else [0.0, 1e-3, 0.6, 1.0, 2.0]
        temperatures = np.array([data.draw(st.sampled_from(choices)) for _ in range(rows)], FLOAT32)
        noise = np.stack([_core.exponential_noise(seed, drawn + row, vocab) for row in range(rows)])
        got = sampler(logits, temperatures)
        expected = reference.sampler.sample(logits, temperatures, noise)
        assert got.dtype == np.int64
        if reference.live:  # in float32, so that close ones may change places
            scores = reference.sampler.scores(logits, temperatures, noise)
            every = np.arange(rows)
            assert np.all(np.abs(scores[every, expected] - scores[every, got]) < 1e-5)
        else:
            np.testing.assert_array_equal(got, expected)
        drawn += rows


def test_the_noise_is_exponential() -> None:
    noise = np.sort(_core.exponential_noise(7, 0, 100_000))
    assert noise.dtype == np.float64
    assert noise.min() >= 1e-10
    # Kolmogorov and Smirnov's statistic; a distance of 0.0068 has a probability of about 2e-4 by chance.
    distance = np.abs(-np.expm1(-noise) - np.arange(1, 100_001) / 100_000).max()
    assert distance < 0.0068


DRAWS = 40_000
TEMPERATURE = 0.7
LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, 1.5, -3.0])


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def chi_square(observed: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Pearson's statistic of counts `[..., k]`."""
    expected = observed.sum(axis=-1, keepdims=True) * probabilities
    return ((observed - expected) ** 2 / expected).sum(axis=-1)


def critical(probabilities: np.ndarray) -> float:
    """What the statistic exceeds one time in a thousand by chance, by simulation."""
    simulated = np.random.default_rng(1).multinomial(DRAWS, probabilities, size=50_000)
    return float(np.quantile(chi_square(simulated, probabilities), 0.999))


def tokens(device: str, seed: int) -> np.ndarray:
    logits = np.tile(LOGITS.astype(FLOAT32), (DRAWS, 1))
    return Sampler(seed, device=device)(logits, np.full(DRAWS, TEMPERATURE, FLOAT32))


@pytest.mark.parametrize("device", DEVICES)
def test_the_distribution_is_the_softmax(device: str) -> None:
    """The test's power: a temperature 4% off would be found out at least 99 times in a hundred."""
    probabilities = softmax(LOGITS / TEMPERATURE)
    limit = critical(probabilities)
    wrong = np.random.default_rng(2).multinomial(DRAWS, softmax(LOGITS / (1.04 * TEMPERATURE)), size=2000)
    assert np.mean(chi_square(wrong, probabilities) > limit) >= 0.99
    observed = np.bincount(tokens(device, 1), minlength=len(LOGITS))
    assert chi_square(observed, probabilities) <= limit


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lag", [1, 2])
def test_rows_are_independent(device: str, lag: int) -> None:
    """The pair of tokens of rows that follow each other, and of rows one apart, in two groups of tokens each."""
    high = tokens(device, 3) == 0
    p = softmax(LOGITS / TEMPERATURE)[0]
    first, second = high[:: 2 * lag], high[lag :: 2 * lag]
    pairs = np.bincount(2 * first + second, minlength=4)
    expected = np.array([(1 - p) ** 2, (1 - p) * p, p * (1 - p), p**2])
    assert chi_square(pairs, expected) < 16.27  # 3 degrees of freedom, one time in a thousand


def test_seeds() -> None:
    logits, temperatures = np.zeros((50, 1000), FLOAT32), np.ones(50, FLOAT32)
    one, same, other = (Sampler(seed)(logits, temperatures) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.mean(one == other) < 0.1
    assert np.mean(Sampler()(logits, temperatures) == Sampler()(logits, temperatures)) < 0.1


def test_what_is_not_a_number_is_never_chosen() -> None:
    logits = np.array([[np.nan, 1.0, np.nan, 0.0], [np.nan] * 4, [-np.inf, -np.inf, 0.0, -np.inf]], FLOAT32)
    for temperature in (0.0, 1.0):
        got = Sampler(1)(logits, np.full(3, temperature, FLOAT32))
        assert got[0] in {1, 3}
        assert got[1:].tolist() == [0, 2]


def test_refusals() -> None:
    sampler, logits, ones = Sampler(0), np.zeros((2, 5), FLOAT32), np.ones(2, FLOAT32)
    with pytest.raises(ValueError, match=r"temperatures\[1\] must be finite and not negative, got -1"):
        sampler(logits, np.array([1, -1], FLOAT32))
    with pytest.raises(ValueError, match=r"temperatures\[0\] must be finite and not negative, got NaN"):
        sampler(logits, np.array([np.nan, 1], FLOAT32))
    with pytest.raises(ValueError, match=r"temperatures must have shape \[2\], got \[3\]"):
        sampler(logits, np.ones(3, FLOAT32))
    with pytest.raises(ValueError, match=r"logits must have shape \[any, any\], got \[5\]"):
        sampler(logits[0], ones)
    with pytest.raises(ValueError, match="logits must have 1 to"):
        sampler(logits[:, :0], ones)
    with pytest.raises(ValueError, match="key is -1, outside 0 to"):
        Sampler(-1)(logits, ones)
