"""The prefix cache through the public API: what a second call computes, and that its answers do not change."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanovllm import LLM, SamplingParams

TINY_QWEN3 = Path(__file__).parent / "golden" / "tiny_qwen3"
VOCAB_SIZE = 320
BLOCK_SIZE = 256
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
SAMPLED = SamplingParams(temperature=1, max_tokens=8, ignore_eos=True, seed=7)
"""Draws change with the slightest change of a logit that matters, where greedy choices often survive it."""


def new_engine() -> LLM:
    return LLM(TINY_QWEN3, max_model_len=1024, num_kvcache_blocks=64)


def prompts_with_prefix(rng: np.random.Generator, prefix: list[int], tail_lengths: list[int]) -> list[list[int]]:
    return [prefix + rng.integers(0, VOCAB_SIZE, length).tolist() for length in tail_lengths]


def answers(llm: LLM, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
    return [output["token_ids"] for output in llm.generate(prompts, params, use_tqdm=False)]


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("tails", ["same tails", "new tails"])
def test_second_call_computes_only_the_tails(params: SamplingParams, tails: str) -> None:
    rng = np.random.default_rng(0)
    prefix = rng.integers(0, VOCAB_SIZE, 300).tolist()
    tail_lengths = [1, 5, 17, 40, 64, 100, 150, 200]
    first = prompts_with_prefix(rng, prefix, tail_lengths)
    second = first if tails == "same tails" else prompts_with_prefix(rng, prefix, tail_lengths)

    llm = new_engine()
    answers(llm, first, params)
    after_first = llm.stats()
    # All eight run in one step, before which no block is in the cache.
    assert after_first["num_prefilled_tokens"] == sum(map(len, first))
    assert after_first["num_cached_tokens"] == 0

    outputs = llm.generate(second, params, use_tqdm=False)
    after_second = llm.stats()
    # Whole blocks are shared: 256 of the prefix's 300 tokens; its last 44 belong to the tails.
    computed = after_second["num_prefilled_tokens"] - after_first["num_prefilled_tokens"]
    assert computed == sum(len(prompt) - BLOCK_SIZE for prompt in second)
    assert after_second["num_cached_tokens"] == 8 * BLOCK_SIZE
    assert [output["num_cached_tokens"] for output in outputs] == [BLOCK_SIZE] * 8
    assert [output["num_prompt_tokens"] for output in outputs] == list(map(len, second))

    fresh = new_engine()
    assert [output["token_ids"] for output in outputs] == answers(fresh, second, params)
    assert fresh.stats()["num_prefilled_tokens"] == sum(map(len, second))
    for engine in (llm, fresh):
        assert engine.stats()["num_free_blocks"] == 64


@pytest.fixture(scope="module")
def shared_engine() -> LLM:
    """An engine that keeps its cache from example to example."""
    return new_engine()


fresh_seeds = count(1)


@given(
    prefix_length=st.integers(0, 600),
    tail_lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    params=st.sampled_from([GREEDY, SAMPLED]),
)
@settings(max_examples=25, deadline=None)
def test_repeating_a_call_computes_less_than_a_block_of_each_prompt(
    shared_engine: LLM, prefix_length: int, tail_lengths: list[int], params: SamplingParams
) -> None:
    rng = np.random.default_rng(next(fresh_seeds))  # prompts that no earlier example left in the cache
    prompts = prompts_with_prefix(rng, rng.integers(0, VOCAB_SIZE, prefix_length).tolist(), tail_lengths)
    first = answers(shared_engine, prompts, params)
    before = shared_engine.stats()["num_prefilled_tokens"]
    assert answers(shared_engine, prompts, params) == first
    # The last token is computed always: without it there are no logits. So a prompt's last block is never taken.
    expected = sum((len(prompt) - 1) % BLOCK_SIZE + 1 for prompt in prompts)
    assert shared_engine.stats()["num_prefilled_tokens"] - before == expected
    assert answers(new_engine(), prompts, params) == first


def test_generated_tokens_are_cached_too() -> None:
    """The next turn of a conversation continues from the blocks of the last answer."""
    rng = np.random.default_rng(1)
    prompt = rng.integers(0, VOCAB_SIZE, 250).tolist()
    llm = new_engine()
    (answer,) = answers(llm, [prompt], SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    next_turn = prompt + answer + rng.integers(0, VOCAB_SIZE, 5).tolist()
    (output,) = llm.generate([next_turn], GREEDY, use_tqdm=False)
    assert output["num_cached_tokens"] == BLOCK_SIZE
    assert [output["token_ids"]] == answers(new_engine(), [next_turn], GREEDY)


def test_a_different_first_token_shares_nothing() -> None:
    """Block hashes chain: equal blocks after different ones are not equal."""
    rng = np.random.default_rng(2)
    prompt = rng.integers(0, VOCAB_SIZE, 600).tolist()
    other = [(prompt[0] + 1) % VOCAB_SIZE, *prompt[1:]]
    llm = new_engine()
    answers(llm, [prompt], GREEDY)
    (output,) = llm.generate([other], GREEDY, use_tqdm=False)
    assert output["num_cached_tokens"] == 0
    assert [output["token_ids"]] == answers(new_engine(), [other], GREEDY)
