"""nano-vLLM's `engine/llm_engine.py`, with a function in the place of its model and no tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from parity import standins

_NANO = standins.loaded()


class LLMEngine:
    """nano-vLLM's engine over a config and a function that gives the tokens of a step."""

    def __init__(self, config: Any, run: Callable[[list[Any], bool], list[int]]) -> None:
        _NANO["engine.sequence"].Sequence.block_size = config.kvcache_block_size
        self._engine = engine = object.__new__(_NANO["engine.llm_engine"].LLMEngine)
        engine.scheduler = _NANO["engine.scheduler"].Scheduler(config)
        engine.model_runner = SimpleNamespace(call=lambda _run, seqs, is_prefill: run(seqs, is_prefill))
        engine.tokenizer = SimpleNamespace(decode=lambda _: "")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, prompts: list[list[int]], sampling_params: Any) -> list[list[int]]:
        """The completions in the order of the prompts."""
        outputs = self._engine.generate(prompts, sampling_params, use_tqdm=False)
        return [output["token_ids"] for output in outputs]
