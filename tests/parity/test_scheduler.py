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
    capacity = program.num_blocks * program.block_size
    if right.dead:
        steps = left.to_the_end(steps)
        too_long = [seq for seq in left.seqs if seq.num_tokens > capacity]
        assert too_long
        for seq in too_long:
            assert seq.finish_reason == "length"
            assert seq.num_tokens == capacity + 1 or not seq.num_completion_tokens
    for seq in left.seqs if left.scheduler.is_finished() else []:
        stopped = seq.num_completion_tokens > 0 and seq.last_token == EOS and not seq.ignore_eos
        assert seq.is_finished
        assert seq.finish_reason == ("stop" if stopped else "length")
        assert list(seq.block_table) == []
    counts.add("scheduler", steps=steps)


def test_a_step_with_nothing_to_do(reference: Any) -> None:
    """An assertion in nano-vLLM; here an empty step."""
    from parity import ours

    program = Program(2, 4, 1, 8, [], [0], 0)
    with pytest.raises(AssertionError):
        Engine(reference, program).scheduler.schedule()
    assert Engine(ours, program).scheduler.schedule() == ([], False)
