"""Embeddings: a plain forward's hidden states, pooled by definition."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanovllm import LLM, AsyncLLM, EmbeddingOutput, SamplingParams
from reference.safetensors_io import load_checkpoint
from reference.transformer import hidden_states

TINY = Path(__file__).parent / "golden" / "tiny_qwen3"
PROMPTS = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=40), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(str(TINY), num_kvcache_blocks=64) as llm:
        yield llm


def pooled(prompt: list[int], pooling: str, normalize: bool) -> Any:
    states = hidden_states(*load_checkpoint(TINY), prompt, np.float64)
    vector = states.mean(0) if pooling == "mean" else states[-1]
    return vector / np.linalg.norm(vector) if normalize else vector


@settings(max_examples=40, deadline=None)
@given(prompts=PROMPTS, pooling=st.sampled_from(["last", "mean"]), normalize=st.booleans())
def test_an_embedding_is_the_pooled_hidden_states(
    llm: LLM, prompts: list[list[int]], pooling: str, normalize: bool
) -> None:
    outputs = llm.embed(prompts, pooling=pooling, normalize=normalize)
    for output, prompt in zip(outputs, prompts, strict=True):
        assert (output.embedding.dtype, output.embedding.shape) == (np.float32, (64,))
        assert output.prompt_token_ids == prompt
        np.testing.assert_allclose(output.embedding, pooled(prompt, pooling, normalize), rtol=2e-3, atol=2e-4)
        assert output.outputs.embedding is output.embedding


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_chunks_and_caches_change_no_bit(llm: LLM, pooling: str) -> None:
    prompts = [[1 + i * i % 200 for i in range(600)], [7, 8, 9]]
    whole = llm.embed(prompts, pooling=pooling)
    again = llm.embed(prompts, pooling=pooling)
    assert whole == again or pooling == "last"
    assert [np.array_equal(a.embedding, b.embedding) for a, b in zip(whole, again, strict=True)] == [True, True]
    # All rows have to be computed for a mean.
    assert [output.num_cached_tokens for output in again] == ([512, 0] if pooling == "last" else [0, 0])
    with LLM(str(TINY), num_kvcache_blocks=64, max_num_batched_tokens=100) as chunked:
        chunks = chunked.embed(prompts, pooling=pooling)
    assert [np.array_equal(a.embedding, b.embedding) for a, b in zip(whole, chunks, strict=True)] == [True, True]


def test_embeddings_go_beside_answers(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    answer = llm.generate([[1, 2, 3]], params, use_tqdm=False)[0]
    expected = llm.embed([[5] * n for n in (1, 9, 300)], pooling="mean")
    stream = llm.stream([1, 2, 3], params)
    parts = [next(stream)]
    assert llm.embed([[5] * n for n in (1, 9, 300)], pooling="mean") == expected
    parts += list(stream)
    assert [token for part in parts for token in part.token_ids] == answer.token_ids
    assert llm.stats()["num_free_blocks"] == 64


def test_texts_and_limits(llm: LLM) -> None:
    (output,) = llm.embed("hello", use_tqdm=True)
    assert isinstance(output, EmbeddingOutput)
    assert (output.prompt, output.prompt_token_ids) == ("hello", llm.tokenizer.encode("hello"))
    assert abs(float(np.linalg.norm(output.embedding)) - 1) < 1e-6
    assert output.timing["total"] > 0
    longest = llm.config.max_model_len
    assert llm.embed([[3] * longest])[0].embedding.shape == (64,)
    with pytest.raises(ValueError, match=f"{longest}"):
        llm.embed([[3] * (longest + 1)])
    with pytest.raises(ValueError, match=r"pooling must be 'last' or 'mean', got 'cls'"):
        llm.embed("hello", pooling="cls")
    with pytest.raises(ValueError, match=r"prompts\[1\]"):
        llm.embed([[1], []])
    with pytest.raises(TypeError, match="pooling"):
        llm.embed("hello", pooling=1)  # type: ignore[arg-type]
    assert llm.embed([]) == []


def test_asynchronous_callers_embed_too(llm: LLM) -> None:
    prompts = [[1 + i] * (1 + i) for i in range(50)]
    expected = llm.embed(prompts, pooling="mean", normalize=False)

    async def run() -> list[EmbeddingOutput]:
        async with AsyncLLM(str(TINY), num_kvcache_blocks=64) as engine:
            tasks = [asyncio.create_task(engine.embed(p, pooling="mean", normalize=False)) for p in prompts]
            cancelled = asyncio.create_task(engine.embed([1] * 1000, request_id="dropped"))
            await asyncio.sleep(0)
            cancelled.cancel()
            outputs = await asyncio.gather(*tasks)
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            with pytest.raises(ValueError, match="takes one prompt"):
                await engine.embed([[1], [2]])  # type: ignore[arg-type]
            aborted = asyncio.create_task(engine.embed([1] * 1000, request_id="aborted"))
            await asyncio.sleep(0)
            if await engine.abort("aborted"):
                with pytest.raises(RuntimeError, match="aborted"):
                    await aborted
            assert engine.stats()["num_free_blocks"] == 64
            return outputs

    outputs = asyncio.run(run())
    assert all(np.array_equal(a.embedding, b.embedding) for a, b in zip(outputs, expected, strict=True))
