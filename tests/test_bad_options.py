"""Every option of a model or of sampling that is wrong is a typed exception that names it and the limit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import LLM, SamplingParams, _core
from nanovllm.config import Config

GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


@given(st.floats() | st.integers())
def test_temperature_is_finite_and_not_negative(temperature: float) -> None:
    # float32 is what the engine computes with: larger than its largest is infinite.
    if 0 <= temperature < 3.4e38:
        assert SamplingParams(temperature=temperature).temperature == temperature
    elif not 3.4e38 <= temperature < 3.5e38:
        with pytest.raises(ValueError, match="temperature"):
            SamplingParams(temperature=temperature)


@given(st.integers())
def test_max_tokens_is_positive(max_tokens: int) -> None:
    if 1 <= max_tokens < 2**64:
        SamplingParams(max_tokens=max_tokens)
    else:
        with pytest.raises(ValueError, match="max_tokens"):
            SamplingParams(max_tokens=max_tokens)


@given(st.integers() | st.none())
def test_seed_is_64_bits(seed: int | None) -> None:
    if seed is None or 0 <= seed < 2**64:
        SamplingParams(seed=seed)
    else:
        with pytest.raises(ValueError, match="seed"):
            SamplingParams(seed=seed)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "warm"},
        {"temperature": None},
        {"temperature": True},
        {"max_tokens": 2.0},
        {"max_tokens": True},
        {"ignore_eos": 1},
    ],
    ids=str,
)
def test_sampling_params_of_another_type(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(TypeError, match=name):
        SamplingParams(**options)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_num_batched_tokens", [0, -1, 1.5, "many", True]),
        ("max_num_seqs", [0, -1, None]),
        ("max_model_len", [0, -4096]),
        ("gpu_memory_utilization", [0, -0.1, 1.01, math.nan, math.inf, "all", True]),
        ("enforce_eager", ["yes", None, 2]),
        ("eos", ["</s>", {1, 2}, [2], 1.5, None, True]),
        ("tensor_parallel_size", [0, 2, 9]),
        ("kvcache_block_size", [0, 255, 300, -256]),
        ("num_kvcache_blocks", [0, -2, 2.5]),
        ("device", ["cuda", "", None]),
        ("num_threads", [0, -1, "two"]),
        ("activation_bits", [0, 4, 15, "16", True]),
        ("isa", ["sse9", "", 5]),
        ("kv_cache_dtype", ["int8", "", None]),
        ("seed", [-1, 2**64, 0.5]),
    ],
)
def test_options_outside_their_limits(tiny_qwen3: str, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=name if name != "isa" else "instruction set"):
            LLM(tiny_qwen3, **{"num_kvcache_blocks": 1, name: value})


@pytest.mark.parametrize("isa", _core.instruction_sets())
def test_an_instruction_set_that_is_absent(tiny_qwen3: str, isa: str) -> None:
    if _core.instruction_sets()[isa]:
        pytest.skip("this machine has it")
    with pytest.raises(ValueError, match=rf"instruction set of this machine .*, got '{isa}'"):
        LLM(tiny_qwen3, num_kvcache_blocks=1, isa=isa)


def test_instruction_sets_that_there_have_always_been() -> None:
    assert {"scalar", "avx2", "avx-vnni", "avx512", "avx512-bf16"} <= set(_core.instruction_sets())
    assert _core.instruction_sets()["scalar"]


@given(
    name=st.sampled_from(["max_num_batched_tokens", "max_num_seqs", "max_model_len", "num_threads", "seed"]),
    value=st.integers(),
)
def test_integer_options_are_taken_or_named(name: str, value: int) -> None:
    model = str(Path(__file__).parent / "golden" / "tiny_qwen3")
    if (0 if name == "seed" else 1) <= value < 2**63:
        Config(model, **{name: value})
    elif value < 0 or value >= 2**64:
        with pytest.raises(ValueError, match=name):
            Config(model, **{name: value})


def test_an_instruction_set_is_one_of_this_machine(tiny_qwen3: str) -> None:
    for name, is_available in _core.instruction_sets().items():
        with pytest.raises(ValueError, match="instruction set of this machine") as error:
            LLM(tiny_qwen3, num_kvcache_blocks=1, isa=5)
        assert (repr(name) in str(error.value)) == is_available


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_tokens": -1}, "max_tokens must be between 1 and"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": 1e39}, r"temperature must be between 0 .* 3\.4e38 .*1e\+?39"),
        ({"temperature": -1}, "temperature must be between 0"),
    ],
    ids=str,
)
def test_sampling_params_say_their_limits(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SamplingParams(**options)


def test_numbers_of_numpy_are_numbers(tiny_qwen3: str) -> None:
    integers = {name: np.int32(value) for name, value in {"max_num_seqs": 3, "num_threads": 1, "seed": 7}.items()}
    for share in (np.float32(0.5), np.float64(0.5)):
        llm = LLM(tiny_qwen3, num_kvcache_blocks=np.int64(2), gpu_memory_utilization=share, **integers)
        assert llm.config == Config(
            tiny_qwen3,
            eos=llm.config.eos,
            num_kvcache_blocks=2,
            gpu_memory_utilization=0.5,
            max_num_seqs=3,
            num_threads=1,
            seed=7,
        )
        assert type(llm.config.max_num_seqs) is int
        params = SamplingParams(temperature=np.float32(0), max_tokens=np.int64(3), seed=np.uint64(1))  # type: ignore[arg-type]
        assert len(llm.generate([np.array([1, 2])], params, use_tqdm=False)[0]["token_ids"]) <= 3  # type: ignore[list-item]
    for value in (np.bool_(True), np.float32(2)):
        with pytest.raises(ValueError, match="max_num_seqs"):
            Config(tiny_qwen3, max_num_seqs=value)


def test_a_kv_cache_of_twice_the_memory(tiny_qwen3: str) -> None:
    total, _, _ = _core.memory(device="cpu")
    block_bytes = LLM(tiny_qwen3, num_kvcache_blocks=1)._engine.kv_cache_bytes
    num_blocks = 2 * total // block_bytes
    with pytest.raises((MemoryError, ValueError), match=rf"num_kvcache_blocks.*{num_blocks}") as error:
        LLM(tiny_qwen3, num_kvcache_blocks=num_blocks)
    if num_blocks < 2**31 // 256:  # else the slots are too many for any memory
        assert isinstance(error.value, MemoryError)
        assert str(num_blocks * block_bytes) in str(error.value)
    # And where memory is what is short: one block of many tokens.
    size = 256 * (2**30 // 256)
    if total < block_bytes // 256 * size:
        with pytest.raises(MemoryError, match=rf"num_kvcache_blocks is 1,.*{block_bytes // 256 * size} bytes"):
            LLM(tiny_qwen3, num_kvcache_blocks=1, kvcache_block_size=size)


def test_a_kv_cache_beyond_all_memory(tiny_qwen3: str) -> None:
    with pytest.raises((MemoryError, ValueError)) as error:
        LLM(tiny_qwen3, num_kvcache_blocks=2**62)
    assert str(error.value)
