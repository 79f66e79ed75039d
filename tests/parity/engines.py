"""Two engines beside each other: each is asked the same, and must answer the same."""

from __future__ import annotations

import itertools
from typing import Any

from parity.programs import MAX_STEPS, Program, Request
from parity.snapshots import block_tokens, describe_blocks, describe_queues, describe_seq


class Engine:
    """A scheduler and the modules around it, driven by a program one step at a time.

    `modules` has `sequence`, `scheduler`, `sampling_params` and `model_runner`, as the fixture `reference` has.
    """

    def __init__(self, modules: Any, program: Program) -> None:
        self.modules, self.program = modules, program
        modules.sequence.Sequence.block_size = program.block_size
        modules.sequence.Sequence.counter = itertools.count()
        self.scheduler = modules.scheduler.Scheduler(program.config())
        self.seqs: list[Any] = []
        self.requests = list(program.requests)
        """Requests that have not arrived yet."""
        self.dead = False
        """Whether it has failed an assertion, as nano-vLLM does where nothing can be scheduled."""

    def arrive(self, step: int) -> None:
        """Queues the requests that are due before a step."""
        due = [request for request in self.requests if request.at <= step]
        self.requests = [request for request in self.requests if request.at > step]
        for request in due:
            self.add(request)

    def add(self, request: Request) -> None:
        """Queues a request."""
        params = self.modules.sampling_params.SamplingParams(
            temperature=request.temperature, max_tokens=request.max_tokens, ignore_eos=request.ignore_eos
        )
        seq = self.modules.sequence.Sequence(request.token_ids, params)
        self.scheduler.add(seq)
        self.seqs.append(seq)

    def step(self, sampled: list[int] | None = None) -> dict[str, Any]:
        """One step; everything that can be seen of it. AssertionError where nothing can be scheduled.

        The tokens are the program's, or those given.
        """
        seqs, is_prefill = self.scheduler.schedule()
        runner = self.modules.model_runner
        prepare = runner.prepare_prefill if is_prefill else runner.prepare_decode
        seen = {
            "prefill": is_prefill,
            "scheduled": [describe_seq(seq) for seq in seqs],
            "inputs": prepare(seqs, self.program.block_size),
            "temperatures": runner.prepare_sample(seqs),
        }
        if sampled is None:
            sampled = [self.program.sample(seq.seq_id, seq.num_tokens) for seq in seqs]
        self.scheduler.postprocess(seqs, sampled, is_prefill)
        return seen | {"after": [describe_seq(seq) for seq in seqs]} | self.state()

    def to_the_end(self, step: int) -> int:
        """Goes on by itself from a step until nothing is left; returns the number of steps. Some may be empty."""
        while self.requests or not self.scheduler.is_finished():
            self.arrive(step)
            seqs, is_prefill = self.scheduler.schedule()
            sampled = [self.program.sample(seq.seq_id, seq.num_tokens) for seq in seqs]
            self.scheduler.postprocess(seqs, sampled, is_prefill)
            step += 1
        blocks = self.scheduler.block_manager
        assert sorted(blocks.free_block_ids) == list(range(self.program.num_blocks))
        return step

    def state(self) -> dict[str, Any]:
        """Everything that can be seen between steps."""
        manager = self.scheduler.block_manager
        return describe_queues(self.scheduler) | {
            "blocks": describe_blocks(manager),
            "known": block_tokens(manager),
            "seqs": [describe_seq(seq) | {"tokens": list(seq.token_ids)} for seq in self.seqs],
        }


def compare(subject: Engine, reference: Engine) -> int:
    """Runs a program on both and compares everything after each step; returns the number of steps.

    Raises AssertionError only for a difference: where the reference cannot go on, it is marked dead, and both stand
    before that step.
    """
    for step in range(MAX_STEPS):
        reference.arrive(step)
        subject.arrive(step)
        assert subject.scheduler.is_finished() == reference.scheduler.is_finished()
        if reference.scheduler.is_finished():
            if not reference.requests:
                return step
            continue
        try:
            expected = reference.step()
        except AssertionError:
            reference.dead = True
            return step
        assert subject.step() == expected, f"step {step}"
    return MAX_STEPS
