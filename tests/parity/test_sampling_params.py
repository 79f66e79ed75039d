"""`sampling_params.py`: fields, order, defaults, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import SamplingParams
from parity import counts

FIELDS = ("temperature", "max_tokens", "ignore_eos")


@counts.examples()
@given(
    values=st.tuples(st.floats(1e-9, 1e4, allow_subnormal=False), st.integers(1, 2**31), st.booleans()),
    count=st.integers(0, 3),
)
def test_values(reference: Any, values: tuple[Any, ...], count: int) -> None:
    """Positional arguments land where nano-vLLM puts them, the rest has its defaults."""
    ours, theirs = (make(*values[:count]) for make in (SamplingParams, reference.sampling_params.SamplingParams))
    assert [getattr(ours, name) for name in FIELDS] == [getattr(theirs, name) for name in FIELDS]


def test_fields_begin_with_theirs(reference: Any) -> None:
    theirs = [field.name for field in dataclasses.fields(reference.sampling_params.SamplingParams)]
    ours = [field.name for field in dataclasses.fields(SamplingParams)]
    assert theirs == list(FIELDS) == ours[: len(theirs)]


@counts.examples()
@given(temperature=st.floats(max_value=1e-10) | st.just(math.nan))
def test_what_nano_vllm_refuses(reference: Any, temperature: float) -> None:
    """Of its refusals one is lifted: temperatures near 0 are greedy here, and 0 says so."""
    with pytest.raises(AssertionError):
        reference.sampling_params.SamplingParams(temperature=temperature)
    if temperature >= 0:
        assert SamplingParams(temperature=temperature).temperature == temperature
    else:
        with pytest.raises(ValueError, match="temperature"):
            SamplingParams(temperature=temperature)


@counts.examples()
@given(max_tokens=st.integers(max_value=0))
def test_what_never_ends(reference: Any, max_tokens: int) -> None:
    """nano-vLLM accepts it and generates until something else fails."""
    reference.sampling_params.SamplingParams(max_tokens=max_tokens)
    with pytest.raises(ValueError, match="max_tokens"):
        SamplingParams(max_tokens=max_tokens)
