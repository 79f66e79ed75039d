"""Scheduling policies and priorities: who is computed when, and that nobody's answer depends on it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanovllm import LLM, AsyncLLM, SamplingParams

TINY = str(Path(__file__).parent / "golden" / "tiny_qwen3")
POLICIES = ("nano-vllm", "default", "mixed")


def options(policy: str, blocks: int = 64, **more: Any) -> dict[str, Any]:
    size = 32 if policy == "mixed" else 256
    return {"scheduling_policy": policy, "num_kvcache_blocks": blocks * 256 // size, **more}


REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 700),  # tokens of the prompt
        st.integers(1, 12),  # of the answer
        st.integers(1, 3),  # answers
        st.integers(-2, 2),  # priority
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=15, deadline=None)
@given(requests=REQUESTS, rows=st.sampled_from([40, 300, 16384]), seqs=st.integers(1, 6))
def test_answers_do_not_depend_on_the_policy(requests: list[tuple[int, int, int, int]], rows: int, seqs: int) -> None:
    prompts = [[1 + (i * i + j) % 200 for j in range(length)] for i, (length, *_) in enumerate(requests)]
    params = [SamplingParams(n=n, seed=5, max_tokens=most, ignore_eos=True) for _, most, n, _ in requests]
    priorities = [priority for *_, priority in requests]
    answers = []
    for policy in POLICIES:
        limits = {"max_num_batched_tokens": rows, "max_num_seqs": seqs}
        with LLM(TINY, **options(policy, blocks=6, **limits)) as llm:
            outputs = llm.generate(prompts, params, use_tqdm=False, priority=priorities)
            answers.append([output.outputs for output in outputs])
            stats = llm.stats()
            assert stats["num_free_blocks"] == stats["num_kvcache_blocks"]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_lower_priority_number_comes_first(policy: str) -> None:
    with LLM(TINY, **options(policy, max_num_seqs=1)) as llm:
        params = SamplingParams(max_tokens=4, ignore_eos=True)
        outputs = llm.generate([[1, 2], [3, 4], [5, 6]], params, use_tqdm=False, priority=[3, -1, 0])
        totals = [output.timing["total"] for output in outputs]
        assert totals[1] < totals[2] < totals[0]
        with pytest.raises(ValueError, match="got 2 prompts but 3 priorities"):
            llm.generate([[1], [2]], params, priority=[1, 2, 3])
        with pytest.raises(TypeError, match="priority must be an integer"):
            llm.generate([[1]], params, priority="high")  # type: ignore[arg-type]
        assert len(list(llm.stream([1], params, priority=7))) == 4


def test_mixed_steps_decode_beside_a_long_prompt() -> None:
    """Under the default policy nothing is decoded while a prompt is prefilled in chunks."""
    for policy, beside in [("mixed", True), ("default", False)]:
        with LLM(TINY, **options(policy, max_num_batched_tokens=64)) as llm:
            short = llm.add_request([1, 2, 3], SamplingParams(max_tokens=200, ignore_eos=True))
            while llm.metrics().num_generated_tokens == 0:
                llm.step()
            llm.add_request([1 + i % 200 for i in range(900)], SamplingParams(max_tokens=1, ignore_eos=True))
            while llm.metrics().num_prefilled_tokens < 600:
                llm.step()
            assert (llm.metrics().num_generated_tokens > 3) == beside
            llm.abort(short)


def test_a_more_urgent_request_takes_the_place_of_the_last() -> None:
    async def run() -> list[str]:
        order: list[str] = []

        async def ask(name: str, length: int, priority: int) -> None:
            params = SamplingParams(max_tokens=length, ignore_eos=True)
            async for _ in llm.generate([1, 2, 3], params, priority=priority):
                pass
            order.append(name)

        async with AsyncLLM(TINY, num_kvcache_blocks=40, max_num_seqs=1, max_model_len=1024) as llm:
            slow = asyncio.create_task(ask("slow", 900, 1))
            while llm.metrics().num_generated_tokens == 0:
                await asyncio.sleep(0.001)
            await ask("urgent", 4, 0)
            await slow
            assert llm.metrics().num_preemptions == 1
        return order

    assert asyncio.run(run()) == ["urgent", "slow"]


def test_prefixes_are_found_in_blocks_of_32_tokens() -> None:
    with LLM(TINY, **options("mixed")) as llm:
        prompt = [1 + i % 200 for i in range(100)]
        params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
        first = llm.generate([prompt], params, use_tqdm=False)[0]
        again = llm.generate([prompt], params, use_tqdm=False)[0]
        assert (first.num_cached_tokens, again.num_cached_tokens) == (0, 96)
        assert first.token_ids == again.token_ids
        assert llm.config.kvcache_block_size == 32


def test_options_are_checked() -> None:
    for value in (0, -1, float("nan"), "1", True):
        with pytest.raises(ValueError, match="max_inter_token_latency must be None or a number of seconds above 0"):
            LLM(TINY, max_inter_token_latency=value)
    with pytest.raises(ValueError, match="scheduling_policy must be one of None, 'nano-vllm', 'default', 'mixed'"):
        LLM(TINY, scheduling_policy="fifo")
    with pytest.raises(ValueError, match="a positive multiple of 16"):
        LLM(TINY, scheduling_policy="mixed", kvcache_block_size=24)
    with pytest.raises(ValueError, match="a positive multiple of 256"):
        LLM(TINY, kvcache_block_size=32)
    with LLM(TINY, scheduling_policy="mixed", max_inter_token_latency=0.05, num_kvcache_blocks=64) as llm:
        assert len(llm.generate([[1]], SamplingParams(max_tokens=3, ignore_eos=True))[0].token_ids) == 3
