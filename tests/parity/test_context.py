"""`utils/context.py`: after any calls, the context is the one that nano-vLLM would have."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.utils import context
from parity import counts
from parity.fixture import Reference


def test_fields_and_defaults(reference: Reference) -> None:
    fields = dataclasses.fields(context.Context)
    assert [(field.name, field.default) for field in fields] == list(reference.context.FIELDS.items())
    assert not hasattr(context.Context(), "__dict__")


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments of `set_context`; None for a call of `reset_context`."""
    names = [field.name for field in dataclasses.fields(context.Context)]
    if draw(st.booleans()):
        return None
    positional = draw(st.integers(1, len(names)))
    values = st.lists(st.integers(0, 9), max_size=3)
    keywords = draw(st.dictionaries(st.sampled_from(names[positional:]), values)) if names[positional:] else {}
    return [True, *(draw(values) for _ in range(positional - 1))], keywords


@counts.examples()
@given(program=st.lists(calls(), max_size=5))
def test_programs(reference: Reference, program: list[tuple[list[Any], dict[str, Any]] | None]) -> None:
    context.reset_context()
    reference.context.reset_context()
    for call in program:
        for module in (context, reference.context):
            if call is None:
                module.reset_context()
            else:
                module.set_context(*call[0], **call[1])
        assert dataclasses.asdict(context.get_context()) == reference.context.get()
    context.reset_context()


def test_is_prefill_is_required() -> None:
    with pytest.raises(TypeError, match="is_prefill"):
        context.set_context()
