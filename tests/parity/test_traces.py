"""Programs recorded from nano-vLLM itself, replayed step by step on whatever is under test."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parity import counts, ours
from parity.engines import Engine
from parity.programs import Request

RECORDING = Path(__file__).parents[1] / "golden" / "nano_vllm_traces.json.gz"


@pytest.fixture(scope="module")
def recording() -> dict[str, Any]:
    """The recorded programs, whose fields are described in tests/golden/README.md."""
    with gzip.open(RECORDING) as file:
        return json.load(file)


@dataclass(frozen=True)
class Recorded:
    """A recorded program, with the attributes of `Program` that an engine needs."""

    options: dict[str, int]
    requests: list[Request]

    @property
    def block_size(self) -> int:
        return self.options["kvcache_block_size"]

    def config(self) -> SimpleNamespace:
        return SimpleNamespace(**self.options)


@pytest.fixture(params=["nanovllm", "reference"])
def side(request: pytest.FixtureRequest, reference: Any) -> Any:
    """Our package, and then the reference that every other suite compares it with."""
    return ours if request.param == "nanovllm" else reference


def request_of(recorded: dict[str, Any]) -> Request:
    names = ("at", "max_tokens", "ignore_eos", "temperature")
    return Request(token_ids=recorded["tokens"], **{name: recorded[name] for name in names})


def in_words_of_the_recording(seen: dict[str, Any]) -> dict[str, Any]:
    ids = {queue: [seq["id"] for seq in seen[queue]] for queue in ("waiting", "running")}
    return {name: seen[name] for name in ("prefill", "scheduled", "inputs", "after", "blocks")} | ids


def replay(engine: Engine, trace: dict[str, Any]) -> None:
    for number, step in enumerate(trace["steps"]):
        engine.arrive(number)
        if step is None:
            assert engine.scheduler.is_finished()
            continue
        expected = {name: value for name, value in step.items() if name != "sampled"}
        assert in_words_of_the_recording(engine.step(step["sampled"])) == expected, f"step {number}"


def test_programs(side: Any, recording: dict[str, Any]) -> None:
    for trace in recording["traces"]:
        engine = Engine(side, Recorded(trace["config"], [request_of(request) for request in trace["requests"]]))
        replay(engine, trace)
        counts.add("traces", examples=1, steps=len(trace["steps"]))
        if trace["error"] is None:
            assert engine.scheduler.is_finished()
            final = [{"id": s.seq_id, "tokens": s.token_ids, "completion": s.completion_token_ids} for s in engine.seqs]
            assert final == trace["final"]
    assert sum(len(trace["steps"]) for trace in recording["traces"]) == 6588


def test_hashes(side: Any, recording: dict[str, Any]) -> None:
    compute_hash = side.block_manager.BlockManager.compute_hash
    for case in recording["hashes"]:
        expected = int(case["hash"])
        assert compute_hash(case["tokens"]) == expected
        assert compute_hash(case["tokens"], expected) == int(case["chained"])
    assert len(recording["hashes"]) == 200
