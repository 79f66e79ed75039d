"""nano-vLLM itself, on the stand-ins, from a checkpoint to text; and our package beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanovllm
from parity.tiny_models import save_qwen3
from reference import safetensors_io, transformer

MAX_TOKENS = 20
LENGTHS = (3, 40, 256, 270)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 checkpoint."""
    return save_qwen3(tmp_path_factory.mktemp("qwen3"), num_hidden_layers=3, hidden_size=64, num_attention_heads=4)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Random tokens, around a block's length; the last two share their first block."""
    tokens = np.random.default_rng(1).integers(0, 300, max(LENGTHS)).tolist()
    return [tokens[:length] for length in LENGTHS]


def logits_of(model: Path, prompt: list[int], chosen: list[int]) -> np.ndarray:
    """The scores that each of the chosen tokens was chosen from, in float32: `[len(chosen), vocab]`."""
    weights, config = safetensors_io.load_checkpoint(model)
    return transformer.forward(weights, config, [*prompt, *chosen[:-1]])[len(prompt) - 1 :]


def assert_greedy(scores: np.ndarray, chosen: list[int]) -> None:
    """Each token is the likeliest, but where the two likeliest are closer than nano-vLLM's bfloat16 can tell."""
    best = scores.max(axis=-1)
    lost = best - scores[range(len(chosen)), chosen]
    ulp = 2.0 ** (np.floor(np.log2(np.abs(best))) - 7)
    assert (lost <= 2 * ulp).all()


def test_the_packages_never_meet(nano_vllm: Any) -> None:
    assert sys.modules["nanovllm"] is nanovllm
    assert Path(nano_vllm["llm"].__file__).is_relative_to(nano_vllm.checkout)
    assert nano_vllm["llm"].LLM is not nanovllm.LLM
    with nano_vllm.swapped():
        assert sys.modules["nanovllm"] is not nanovllm
    assert sys.modules["nanovllm"] is nanovllm


def test_both_generate(nano_vllm: Any, model: Path, prompts: list[list[int]]) -> None:
    llm = nano_vllm.llm(model, 4 << 20, max_num_batched_tokens=300, max_model_len=300)
    params = nano_vllm["sampling_params"].SamplingParams(temperature=1e-6, max_tokens=MAX_TOKENS, ignore_eos=True)
    try:
        theirs = [output["token_ids"] for output in llm.generate(prompts, params, use_tqdm=False)]
    finally:
        nano_vllm.close(llm)
    ours = nanovllm.LLM(str(model), num_threads=1, num_kvcache_blocks=8)
    greedy = nanovllm.SamplingParams(temperature=0, max_tokens=MAX_TOKENS, ignore_eos=True)
    answers = [output["token_ids"] for output in ours.generate(prompts, greedy, use_tqdm=False)]
    ours.exit()
    for prompt, answer, other in zip(prompts, answers, theirs, strict=True):
        for chosen in (answer, other):
            assert len(chosen) == MAX_TOKENS
            assert_greedy(logits_of(model, prompt, chosen), chosen)
