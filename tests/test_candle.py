"""The device on candle against the CPU device and transformers: logits, greedy and sampled answers, GGUF types.

Its kernels have nothing in common with the CPU device's, so what both agree on is right twice.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nanovllm import LLM, SamplingParams, _core
from reference.gguf_weights import load_gguf
from reference.transformer import forward
from runners import model_runner
from tensor_types import IN_BLOCKS
from test_gguf_models import KINDS, write_model

GOLDEN = Path(__file__).parent / "golden"
DEVICES = ("candle", "candle-f32")
PROMPTS = ["the quick brown fox", "a", "Once upon a time there was a small engine", [5, 6, 7] * 40]


pytestmark = pytest.mark.skipif("candle" not in _core.device_names(), reason="this build lacks the feature candle")


def nmse(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.square(ours - expected, dtype=np.float64).sum() / np.square(expected, dtype=np.float64).sum())


def generate(model: str | Path, device: str, params: SamplingParams | list[SamplingParams]) -> list[list[int]]:
    llm = LLM(model, device=device, num_kvcache_blocks=16, seed=7)
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    assert llm.stats()["num_free_blocks"] == 16
    llm.exit()
    return [output["token_ids"] for output in outputs]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "length"), [("tiny_qwen3", 1), ("tiny_qwen3", 300), ("tiny_llama", 257)])
def test_logits_agree_with_transformers_and_the_cpu(name: str, length: int, device: str) -> None:
    """Whole, in chunks across a block's edge, and token by token; the weights are float32, whatever the device."""
    with np.load(GOLDEN / f"{name}_logits.npz") as arrays:
        ids, golden = arrays[f"ids_{length}"].tolist(), arrays[f"logits_{length}"]
    cpu = model_runner(GOLDEN / name, num_kvcache_blocks=8).logits(ids)
    runner = model_runner(GOLDEN / name, device=device, num_kvcache_blocks=8)
    for chunk in (length, 100, 1):
        sizes = [min(chunk, length - start) for start in range(0, length, chunk)]
        logits = runner.logits(ids, sizes)
        assert nmse(logits, golden) < 1e-9
        assert nmse(logits, cpu) < 1e-9


@pytest.mark.parametrize("device", DEVICES)
def test_a_bfloat16_cache_is_the_cpus(tiny_model: str, device: str) -> None:
    ids = list(range(5, 65))
    ours, cpu = (
        model_runner(tiny_model, device=name, kv_cache_dtype="bfloat16", num_kvcache_blocks=1).logits(ids)
        for name in (device, "cpu")
    )
    assert nmse(ours, cpu) < 2e-4


@pytest.mark.parametrize("device", DEVICES)
def test_answers_are_the_cpus(tiny_model: str, device: str) -> None:
    """Greedy and sampled: given the same logits, every device draws the same token."""
    params = [
        SamplingParams(temperature=temperature, max_tokens=24, ignore_eos=True) for temperature in (0.0, 0.6, 1.0, 2.0)
    ]
    ours, cpu = (generate(tiny_model, name, params) for name in (device, "cpu"))
    assert ours == cpu
    assert len({tuple(answer) for answer in ours}) == len(PROMPTS)


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_types(tmp_path: Path, kind: str) -> None:
    """Widened, the logits are those of the weights that `gguf` dequantises; in candle's blocks, near them."""
    path = tmp_path / f"{kind}.gguf"
    write_model(path, "tiny_llama", kind)
    ids = list(range(3, 60))
    expected = forward(*load_gguf(path), np.array(ids))
    for device, limit in (("candle-f32", 1e-9), ("candle", 1e-2 if kind in IN_BLOCKS else 1e-9)):
        logits = model_runner(path, device=device, kv_cache_dtype="float32", num_kvcache_blocks=1).logits(ids)
        assert nmse(logits, expected) < limit, device
    greedy = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    assert [len(answer) for answer in generate(path, "candle", greedy)] == [12] * len(PROMPTS)


def test_it_says_what_it_is(tiny_qwen3: str) -> None:
    for device, words in (("candle", "candle (cpu)"), ("candle-f32", "candle (cpu, f32 weights)")):
        llm = LLM(tiny_qwen3, device=device, num_kvcache_blocks=1)
        assert words in llm.description
        llm.exit()


@pytest.mark.parametrize(("name", "value"), [("num_threads", 2), ("isa", "scalar"), ("activation_bits", 8)])
def test_options_of_the_cpu_are_refused(tiny_qwen3: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f'{name} must be left at .* with the device "candle'):
        LLM(tiny_qwen3, device="candle", num_kvcache_blocks=1, **{name: value})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("device", DEVICES)
def test_a_forked_child_is_told_that_it_has_no_threads(tiny_qwen3: str, device: str) -> None:
    """It would wait for them for ever; the device of the CPU works in it."""
    assert len(generate(tiny_qwen3, device, SamplingParams(temperature=0, max_tokens=2))) == len(PROMPTS)
    child = os.fork()
    if child == 0:
        try:
            try:
                LLM(tiny_qwen3, device=device, num_kvcache_blocks=16)
            except RuntimeError as error:
                answers = generate(tiny_qwen3, "cpu", SamplingParams(temperature=0, max_tokens=2))
                os._exit(0 if "fork()" in str(error) and len(answers) == len(PROMPTS) else 1)
            os._exit(2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
