"""A request's tokens are a function of its prompt, its params and its seed.

Neither a small KV pool and the preemptions it forces, nor the requests beside it, the limits of a step or the number of
threads change them. Every check runs greedy and sampled: the noise of a draw belongs to the request, not to the batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanovllm import LLM, SamplingParams
from runners import model_runner

TINY_QWEN3 = Path(__file__).parent / "golden" / "tiny_qwen3"
VOCAB_SIZE = 320
LARGE_POOL = 128


def new_engine(**options: Any) -> LLM:
    return LLM(TINY_QWEN3, **{"max_model_len": 1024, "num_kvcache_blocks": LARGE_POOL} | options)


def random_prompts(seed: int, lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB_SIZE, length).tolist() for length in lengths]


def params_for(prompts: list[list[int]], temperature: float, max_tokens: int) -> list[SamplingParams]:
    """Params with a seed of its own for each request."""
    return [
        SamplingParams(temperature=temperature, max_tokens=max_tokens, ignore_eos=True, seed=seed)
        for seed in range(len(prompts))
    ]


def answers(llm: LLM, prompts: list[list[int]], params: Any) -> list[list[int]]:
    return [output["token_ids"] for output in llm.generate(prompts, params, use_tqdm=False)]


def assert_all_blocks_free(llm: LLM) -> None:
    stats = llm.stats()
    assert stats["num_free_blocks"] == stats["num_kvcache_blocks"]
    assert stats["num_waiting"] == stats["num_running"] == 0
    assert llm.is_finished()


@pytest.mark.parametrize("temperature", [0, 1])
def test_small_pool_changes_no_answer(temperature: float) -> None:
    # Every sequence outgrows its first block while the pool is full of others that do.
    prompts = random_prompts(0, np.random.default_rng(1).integers(200, 256, 32).tolist())
    params = params_for(prompts, temperature, max_tokens=60)

    large = new_engine()
    expected = answers(large, prompts, params)
    assert large.stats()["num_preemptions"] == 0
    assert_all_blocks_free(large)

    small = new_engine(num_kvcache_blocks=6)
    outputs = small.generate(prompts, params, use_tqdm=False)
    assert small.stats()["num_preemptions"] > 0
    assert_all_blocks_free(small)
    assert [output["token_ids"] for output in outputs] == expected
    assert {output["finish_reason"] for output in outputs} == {"length"}
    assert {len(output["token_ids"]) for output in outputs} == {60}
    # Preemption costs time alone: rows are computed again.
    assert small.stats()["num_prefilled_tokens"] > large.stats()["num_prefilled_tokens"] == sum(map(len, prompts))


@given(
    lengths=st.lists(st.integers(1, 520), min_size=1, max_size=8),
    max_tokens=st.integers(1, 40),
    temperature=st.sampled_from([0, 0.7]),
    num_blocks=st.integers(3, 6),
    options=st.fixed_dictionaries(
        {
            "max_num_seqs": st.integers(1, 8),
            "max_num_batched_tokens": st.integers(1, 1500),
            "num_threads": st.sampled_from([1, 2]),
        }
    ),
)
@settings(max_examples=25, deadline=None)
def test_no_limit_changes_an_answer(
    lengths: list[int], max_tokens: int, temperature: float, num_blocks: int, options: dict[str, int]
) -> None:
    prompts = random_prompts(2, lengths)
    params = params_for(prompts, temperature, max_tokens)
    llm = new_engine(num_kvcache_blocks=num_blocks, **options)
    assert answers(llm, prompts, params) == answers(new_engine(num_threads=1), prompts, params)
    assert_all_blocks_free(llm)


def test_blocks_are_conserved_at_every_step() -> None:
    prompts = random_prompts(3, [250] * 12)
    llm = new_engine(num_kvcache_blocks=5, max_num_batched_tokens=400)
    for prompt, params in zip(prompts, params_for(prompts, 1, max_tokens=20), strict=True):
        llm.add_request(prompt, params)
    finished: list[int] = []
    while not llm.is_finished():
        outputs, _ = llm.step()
        finished += [seq_id for seq_id, _ in outputs]
        stats = llm.stats()
        # A running sequence holds at least one block, and a finished one none.
        assert stats["num_running"] <= stats["num_kvcache_blocks"] - stats["num_free_blocks"] <= 5
        assert stats["num_waiting"] + stats["num_running"] + len(finished) == 12
    assert sorted(finished) == sorted(set(finished))
    assert llm.stats()["num_preemptions"] > 0
    assert_all_blocks_free(llm)


def test_more_requests_than_may_run() -> None:
    """At most `max_num_seqs` run, however many wait; they begin in their order, and each ends with its own answer."""
    prompts = random_prompts(7, [1 + 37 * i % 300 for i in range(40)])
    params = params_for(prompts, temperature=0, max_tokens=12)
    llm = new_engine(num_kvcache_blocks=6, max_num_seqs=4)
    seq_ids = [llm.add_request(prompt, param) for prompt, param in zip(prompts, params, strict=True)]
    found: dict[int, list[int]] = {}
    while not llm.is_finished():
        outputs, _ = llm.step()
        found.update(outputs)
        stats = llm.stats()
        assert stats["num_running"] <= 4
        assert stats["num_running"] + stats["num_waiting"] + len(found) == 40
        assert set(found) <= set(seq_ids[: len(found) + 4])  # those that have begun
    assert [found[seq_id] for seq_id in seq_ids] == answers(new_engine(), prompts, params)
    assert_all_blocks_free(llm)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_request_alone_and_among_others(temperature: float) -> None:
    prompts = random_prompts(4, [3, 300, 17, 1, 256, 80])
    params = params_for(prompts, temperature, max_tokens=24)
    together = answers(new_engine(), prompts, params)
    backwards = answers(new_engine(), prompts[::-1], params[::-1])
    assert backwards[::-1] == together
    for threads in (1, 2):
        llm = new_engine(num_threads=threads)
        assert [answers(llm, [prompt], param)[0] for prompt, param in zip(prompts, params, strict=True)] == together


def test_a_request_seed_decides_its_draw() -> None:
    prompts = random_prompts(5, [20]) * 8
    llm = new_engine()
    seeded = [SamplingParams(max_tokens=16, ignore_eos=True, seed=seed) for seed in (1, 1, 2, 3, 1, 2**64 - 1, 0, 2)]
    first, again, two, three, third, largest, zero, two_again = map(tuple, answers(llm, prompts, seeded))
    assert first == again == third
    assert two == two_again
    assert len({first, two, three, largest, zero}) == 5


def test_the_engine_seed_decides_the_rest() -> None:
    """Without seeds of their own, equal prompts get different draws, and a new engine repeats them."""
    prompts = random_prompts(6, [20]) * 8
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    engine = new_engine(seed=3)
    draws = answers(engine, prompts, params)
    assert len(set(map(tuple, draws))) == 8
    assert answers(new_engine(seed=3, num_threads=1), prompts, params) == draws
    assert answers(engine, prompts, params) != draws
    assert answers(new_engine(seed=4), prompts, params) != draws


def test_draws_follow_the_distribution() -> None:
    """A draw takes the softmax of logits / temperature: first tokens of many seeds against their probabilities."""
    (prompt,) = random_prompts(7, [12])
    llm = new_engine(max_num_seqs=512)
    temperature, draws = 0.5, 4000
    params = [SamplingParams(temperature=temperature, max_tokens=1, seed=seed) for seed in range(draws)]
    tokens = [tokens[0] for tokens in answers(llm, [prompt] * draws, params)]
    observed = np.bincount(tokens, minlength=VOCAB_SIZE)

    logits = model_runner(TINY_QWEN3, num_kvcache_blocks=4).logits(prompt)[-1].astype(np.float64) / temperature
    p = np.exp(logits - logits.max())
    p /= p.sum()
    expected = draws * p
    likely = expected >= 5  # Pearson's statistic wants no thin cells: the rest is one
    observed = np.append(observed[likely], observed[~likely].sum())
    expected = np.append(expected[likely], expected[~likely].sum())
    chi2, freedom = ((observed - expected) ** 2 / expected).sum(), len(expected) - 1
    # Chi-squared has mean `freedom` and variance twice that; seeds are fixed, so this holds or it does not.
    assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)
