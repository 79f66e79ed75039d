"""`engine/scheduler.py`: everything that can be seen of a scheduler, after every step of drawn programs."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from parity import counts
from parity.engines import Engine, compare
from parity.programs import Program, programs


@counts.examples()
@given(program=programs())
def test_programs(reference: Any, subject: Any, program: Program) -> None:
    counts.add("scheduler", steps=compare(Engine(subject, program), Engine(reference, program)))
