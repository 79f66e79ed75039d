"""What `LLM.metrics` tells of what happened, and that it waits for nothing."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import LLM, AsyncLLM, SamplingParams
from nanovllm.metrics import Histogram, Metrics

TINY = str(Path(__file__).parent / "golden" / "tiny_qwen3")


def check(metrics: Metrics) -> None:
    ended = metrics.num_stopped + metrics.num_cut_off + metrics.num_aborted
    assert metrics.num_requests == ended + metrics.num_waiting + metrics.num_running
    first, later = metrics.time_to_first_token, metrics.inter_token_latency
    assert first.count + later.count == metrics.num_generated_tokens
    assert metrics.request_latency.count == metrics.num_stopped + metrics.num_cut_off
    assert 0 <= metrics.kv_cache_usage <= 1
    for histogram in (first, later, metrics.request_latency):
        assert list(histogram.counts) == sorted(histogram.counts)
        assert histogram.bounds[-1] == math.inf


def test_they_tell_what_happened() -> None:
    with LLM(TINY, num_kvcache_blocks=16) as llm:
        new = llm.metrics()
        check(new)
        assert (new.num_requests, new.kv_cache_usage, new.num_kvcache_blocks) == (0, 0, 16)
        assert math.isnan(new.prefix_cache_hit_rate)
        assert math.isnan(new.request_latency.mean)
        begin = time.perf_counter()
        params = SamplingParams(max_tokens=5, ignore_eos=True, seed=1)
        stop = llm.generate([[1, 2, 3]], params, use_tqdm=False)[0].token_ids[2]
        llm.generate([[1, 2, 3]], SamplingParams(seed=1, stop_token_ids=[stop]), use_tqdm=False)
        llm.generate([[7] * 300], SamplingParams(n=3, max_tokens=2, ignore_eos=True), use_tqdm=False)
        llm.embed([[9, 9]])
        seconds = time.perf_counter() - begin
        metrics = llm.metrics()
        check(metrics)
        assert (metrics.num_requests, metrics.num_stopped, metrics.num_cut_off) == (6, 2, 4)
        assert (metrics.num_prefilled_tokens, metrics.num_cached_tokens) == (3 + 3 + 300 + 2, 600)
        assert metrics.prefix_cache_hit_rate == pytest.approx(600 / 908)
        assert metrics.time_to_first_token.count == 5
        assert 0 < metrics.time_to_first_token.sum < metrics.request_latency.sum < 6 * seconds
        assert 0 < metrics.inter_token_latency.mean < seconds
        stream = llm.stream([1, 2], SamplingParams(max_tokens=100, ignore_eos=True))
        next(stream)
        assert llm.metrics().num_running == 1
        assert llm.metrics().kv_cache_usage == 1 / 16
        stream.close()
        llm.generate([[1]], params, use_tqdm=False)
        metrics = llm.metrics()
        check(metrics)
        assert (metrics.num_aborted, metrics.num_running) == (1, 0)


def test_they_wait_for_no_step() -> None:
    with LLM(TINY, num_kvcache_blocks=64, max_num_batched_tokens=16384) as llm:
        prompts = [[1 + i % 200 for i in range(1000)]] * 12
        work = threading.Thread(target=llm.generate, args=(prompts, SamplingParams(max_tokens=1), False))
        work.start()
        longest = 0.0
        while work.is_alive():
            begin = time.perf_counter()
            check(llm.metrics())
            longest = max(longest, time.perf_counter() - begin)
        work.join()
        # All prompts are one step, which takes longer than this look does.
        assert longest < llm.metrics().time_to_first_token.mean


def test_asynchronous_callers_are_counted() -> None:
    async def run() -> Metrics:
        async with AsyncLLM(TINY, num_kvcache_blocks=64) as llm:
            params = SamplingParams(max_tokens=8, ignore_eos=True)

            async def one(i: int) -> None:
                async for _ in llm.generate([1, 2, 3 + i], params):
                    pass

            await asyncio.gather(*(one(i) for i in range(30)))
            return llm.metrics()

    metrics = asyncio.run(run())
    check(metrics)
    assert (metrics.num_cut_off, metrics.num_generated_tokens) == (30, 240)


@given(
    durations=st.lists(st.floats(0, 1e4), min_size=1, max_size=50),
    q=st.floats(0, 1),
)
def test_quantiles_are_within_their_bucket(durations: list[float], q: float) -> None:
    bounds = (0.1, 1.0, 10.0, math.inf)
    counts = tuple(sum(duration <= bound for duration in durations) for bound in bounds)
    histogram = Histogram(bounds, counts, sum(durations))
    assert histogram.count == len(durations)
    assert histogram.mean == pytest.approx(np.mean(durations))
    exact = sorted(durations)[max(math.ceil(q * len(durations)) - 1, 0)]
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max([bound for bound in bounds if bound < exact], default=0.0)
    assert lower <= histogram.quantile(q) <= (upper if math.isfinite(upper) else lower)
    with pytest.raises(ValueError, match="between 0 and 1"):
        histogram.quantile(1.5)
