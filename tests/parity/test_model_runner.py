"""`engine/model_runner.py`: the inputs of a step, for sequences as a scheduler leaves them and for any others."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from parity import counts


@st.composite
def sequences(draw: st.DrawFn, block_size: int, decoding: bool) -> dict[str, Any]:
    """Attributes of one sequence: some tokens cached, some of the rest scheduled, blocks anywhere in the pool."""
    token_ids = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=3 * block_size))
    cached = len(token_ids) - 1 if decoding else draw(st.integers(0, len(token_ids) - 1))
    num_blocks = -(-len(token_ids) // block_size)
    return {
        "token_ids": token_ids,
        "num_cached_tokens": cached,
        "num_scheduled_tokens": draw(st.integers(1, len(token_ids) - cached)),
        "block_table": draw(st.lists(st.integers(0, 10**6), min_size=num_blocks, max_size=num_blocks, unique=True)),
        "temperature": draw(st.sampled_from([0.5, 1.0, 2.0])),
    }


@st.composite
def batches(draw: st.DrawFn, decoding: bool = False) -> tuple[int, list[dict[str, Any]]]:
    """A block size and some sequences."""
    block_size = draw(st.integers(2, 8) | st.sampled_from([16, 256]))
    return block_size, draw(st.lists(sequences(block_size, decoding), min_size=1, max_size=6))


def make(side: Any, block_size: int, batch: list[dict[str, Any]]) -> list[Any]:
    """The sequences of a batch."""
    side.sequence.Sequence.block_size = block_size
    side.sequence.Sequence.counter = itertools.count()
    seqs = []
    for attributes in batch:
        params = side.sampling_params.SamplingParams(temperature=attributes["temperature"])
        seq = side.sequence.Sequence(attributes["token_ids"], params)
        for name in ("num_cached_tokens", "num_scheduled_tokens", "block_table"):
            setattr(seq, name, attributes[name])
        seqs.append(seq)
    return seqs


@counts.examples()
@given(batch=batches())
def test_prefill(reference: Any, subject: Any, batch: tuple[int, list[dict[str, Any]]]) -> None:
    ours, theirs = (side.model_runner.prepare_prefill(make(side, *batch), batch[0]) for side in (subject, reference))
    assert ours == theirs


@counts.examples()
@given(batch=batches(decoding=True))
def test_decode(reference: Any, subject: Any, batch: tuple[int, list[dict[str, Any]]]) -> None:
    ours, theirs = (side.model_runner.prepare_decode(make(side, *batch), batch[0]) for side in (subject, reference))
    assert ours == theirs


@counts.examples()
@given(batch=batches())
def test_block_tables_and_temperatures(reference: Any, subject: Any, batch: tuple[int, list[dict[str, Any]]]) -> None:
    ours, theirs = (
        (side.model_runner.prepare_block_tables(seqs), side.model_runner.prepare_sample(seqs))
        for side in (subject, reference)
        for seqs in [make(side, *batch)]
    )
    assert ours == theirs


@counts.examples(0.2)
@given(num_seqs=st.integers(1, 3), length=st.integers(1, 20))
def test_warm_up(reference: Any, subject: Any, num_seqs: int, length: int) -> None:
    """Before there is a cache, sequences have no blocks, and nothing is stored."""
    seen = []
    for side in (subject, reference):
        seqs = [side.sequence.Sequence([0] * length) for _ in range(num_seqs)]
        for seq in seqs:
            seq.num_scheduled_tokens = length
        seen.append(side.model_runner.prepare_prefill(seqs, 256))
    assert seen[0] == seen[1]
    assert seen[1]["slot_mapping"] == []


@counts.examples(0.2)
@given(max_num_seqs=st.integers(1, 600), share=st.floats(0, 1))
def test_graphs(reference: Any, subject: Any, max_num_seqs: int, share: float) -> None:
    """The batch sizes a device would capture, and the one that a step of some sequences would run on."""
    num_seqs = 1 + round(share * (max_num_seqs - 1))
    ours, theirs = (
        (
            side.model_runner.graph_batch_sizes(max_num_seqs),
            side.model_runner.graph_batch_size(max_num_seqs, num_seqs),
        )
        for side in (subject, reference)
    )
    assert ours == theirs
