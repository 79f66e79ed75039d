"""`engine/llm_engine.py`: add, step, collect. The model is whatever function gives the tokens of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .sampling_params import SamplingParams
from .scheduler import Scheduler
from .sequence import Sequence

Run = Callable[[list[Sequence], bool], list[int]]
"""The token that follows each sequence, in a prefill or a decode step."""


class LLMEngine:
    """The loop around a scheduler and a model, on prompts of token ids."""

    def __init__(self, config: Any, run: Run) -> None:
        Sequence.block_size = config.kvcache_block_size
        self.scheduler, self.run = Scheduler(config), run

    def add_request(self, prompt: list[int], sampling_params: SamplingParams) -> None:
        """Queues a prompt."""
        self.scheduler.add(Sequence(prompt, sampling_params))

    def is_finished(self) -> bool:
        """Whether every prompt is answered."""
        return self.scheduler.is_finished()

    def step(self) -> tuple[list[tuple[int, list[int]]], int]:
        """Ids and completions of what has finished, and the tokens computed: of prompts, or negative if decoded."""
        seqs, is_prefill = self.scheduler.schedule()
        num_tokens = sum(seq.num_scheduled_tokens for seq in seqs) if is_prefill else -len(seqs)
        self.scheduler.postprocess(seqs, self.run(seqs, is_prefill), is_prefill)
        return [(seq.seq_id, seq.completion_token_ids) for seq in seqs if seq.is_finished], num_tokens

    def generate(self, prompts: list[list[int]], sampling_params: Any) -> list[list[int]]:
        """The completions in the order of the prompts; whichever is shorter, prompts or params, decides how many."""
        params = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        for prompt, param in zip(prompts, params, strict=False):
            self.add_request(prompt, param)
        finished: dict[int, list[int]] = {}
        while not self.is_finished():
            finished.update(self.step()[0])
        return [finished[seq_id] for seq_id in sorted(finished)]
