"""`engine/scheduler.py`: everything that can be seen of a scheduler, after every step of drawn programs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from parity import counts
from parity.engines import Engine, compare
from parity.programs import EOS, Program, programs


@counts.examples()
@given(program=programs())
def test_programs(reference: Any, subject: Any, program: Program) -> None:
    counts.add("scheduler", steps=compare(Engine(subject, program), Engine(reference, program)))


@counts.examples()
@given(program=programs())
def test_where_nano_vllm_dies(reference: Any, program: Program) -> None:
    """It dies of a sequence that the whole pool cannot hold. Here that one ends, and the others go on."""
    from parity import ours

    left, right = Engine(ours, program), Engine(reference, program)
    steps = compare(left, right)
    if right.dead:
        steps = left.to_the_end(steps)
    by_the_pool = 0
    for seq in left.seqs if left.scheduler.is_finished() else []:
        stopped = seq.num_completion_tokens > 0 and seq.last_token == EOS and not seq.ignore_eos
        assert seq.is_finished
        assert seq.finish_reason == ("stop" if stopped else "length")
        assert list(seq.block_table) == []
        if not stopped and seq.num_completion_tokens < seq.max_tokens:
            by_the_pool += 1
            full = program.num_blocks * program.block_size + 1  # the last token is chosen, but has no place
            assert seq.num_tokens == full or (seq.num_tokens > full - 1 and not seq.num_completion_tokens)
    assert (by_the_pool > 0) == right.dead
    counts.add("scheduler", steps=steps)


def test_a_step_with_nothing_to_do(reference: Any) -> None:
    """nano-vLLM fails an assertion; here the step is empty."""
    from parity import ours

    program = Program(2, 4, 1, 8, [], [0], 0)
    with pytest.raises(AssertionError):
        Engine(reference, program).scheduler.schedule()
    assert Engine(ours, program).scheduler.schedule() == ([], False)
