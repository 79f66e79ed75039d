"""The demo model, SmolLM2-135M-Instruct in Q4_1, against a float32 forward pass in numpy over its dequantised weights.

Both forms are held to it: the GGUF file itself, and the same weights as a float32 Hugging Face directory. `pytest -s`
prints the figures and every position where the first choice differs, with the reference's gap to its second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nanovllm import LLM, SamplingParams, _core
from reference.agreement import choice_disagreements, compare
from reference.safetensors_io import load_checkpoint
from reference.transformer import forward
from runners import INSTRUCTION_SETS, model_runner

TESTS = Path(__file__).parent
POSITIONS = 500
PORTABLE_POSITIONS = 96
"""The portable kernels are slow, and hold to the same bounds over fewer positions."""
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass(frozen=True)
class Reference:
    """The oracle, and its logits `[POSITIONS, vocab]` for the opening of a novel."""

    weights: dict[str, np.ndarray]
    config: dict[str, Any]
    ids: list[int]
    logits: np.ndarray


@pytest.fixture(scope="module")
def hf_directory(demo_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo model's weights dequantised, as a float32 Hugging Face directory."""
    directory = tmp_path_factory.mktemp("demo_model_float32")
    script = [sys.executable, TESTS / "tools" / "gguf_to_hf.py", demo_model, directory, "--dtype", "float32"]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    yield directory
    shutil.rmtree(directory)  # pytest would keep half a gigabyte for each of the last three runs


@pytest.fixture(scope="module")
def hf_tokenizer(hf_directory: Path) -> Tokenizer:
    """The tokenizer that the script rebuilt from the GGUF vocabulary, in the library it was made for."""
    return Tokenizer.from_file(str(hf_directory / "tokenizer.json"))


@pytest.fixture(scope="module")
def reference(hf_directory: Path, hf_tokenizer: Tokenizer) -> Reference:
    weights, config = load_checkpoint(hf_directory)
    text = (TESTS / "golden" / "public_domain.txt").read_text(encoding="utf-8")
    ids = hf_tokenizer.encode(text, add_special_tokens=False).ids[:POSITIONS]
    assert len(ids) == POSITIONS
    return Reference(weights, config, ids, forward(weights, config, ids))


@pytest.fixture(scope="module")
def gguf_llm(demo_model: str) -> Iterator[LLM]:
    llm = LLM(demo_model, max_model_len=1024, num_kvcache_blocks=16)
    yield llm
    llm.exit()


@pytest.fixture(scope="module")
def hf_llm(hf_directory: Path) -> Iterator[LLM]:
    llm = LLM(hf_directory, max_model_len=1024, num_kvcache_blocks=16)
    yield llm
    llm.exit()


def new_runner(path: str | Path, **options: Any) -> _core.ModelRunner:
    return model_runner(path, max_model_len=512, num_kvcache_blocks=8, **options)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_quantised_weights_agree_with_the_reference(demo_model: str, reference: Reference, isa: str) -> None:
    positions = PORTABLE_POSITIONS if isa == "scalar" else POSITIONS
    logits = new_runner(demo_model, isa=isa).logits(reference.ids[:positions])
    agreement = compare(reference.logits[:positions], logits)
    print(f"\nQ4_1, {isa}, {positions} positions: {agreement}")
    assert agreement.top1 >= 0.98, agreement
    assert agreement.mean_kl <= 1.2e-4, agreement  # three times the most that any set gives


def test_eight_bit_activations_stay_close(demo_model: str, reference: Reference) -> None:
    """What fewer bits for speed cost. llama.cpp agrees in 95.8 % of these tokens, at a divergence of 2.8e-3."""
    agreement = compare(reference.logits, new_runner(demo_model, activation_bits=8).logits(reference.ids))
    print(f"\nQ4_1, 8-bit activations, {POSITIONS} positions: {agreement}")
    assert agreement.top1 >= 0.95, agreement
    assert agreement.mean_kl <= 8.5e-3, agreement  # three times what it is


def test_float32_weights_agree_with_the_reference(hf_directory: Path, reference: Reference) -> None:
    agreement = compare(reference.logits, new_runner(hf_directory).logits(reference.ids))
    print(f"\nfloat32, {POSITIONS} positions: {agreement}")
    assert agreement.top1 >= 0.999, agreement
    assert agreement.mean_kl <= 1e-10, agreement  # three times what it is


def test_chunks_and_threads_give_the_same_bits(demo_model: str, reference: Reference) -> None:
    """The tiny models show this too, but most of their products are too small for threads to share."""
    ids = reference.ids[:300]
    expected = new_runner(demo_model, num_threads=1).logits(ids)
    runner = new_runner(demo_model, num_threads=2)
    for sizes in ([300], [1, 6, 248, 1, 1, 43], [37] * 8 + [4], [250] + [1] * 50):
        assert np.array_equal(runner.logits(ids, sizes).view(np.uint32), expected.view(np.uint32)), sizes


def test_greedy_text_of_float32_weights_is_the_references(hf_llm: LLM, reference: Reference) -> None:
    prompt = hf_llm.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Write a short poem about the sea."}], add_generation_prompt=True
    )
    (output,) = hf_llm.generate([prompt], SamplingParams(temperature=0, max_tokens=48), use_tqdm=False)
    tokens = output["token_ids"]
    predicting = forward(reference.weights, reference.config, prompt + tokens)[len(prompt) - 1 : -1]
    disagreements = choice_disagreements(predicting, tokens)
    print(f"\n{len(tokens)} tokens, {disagreements}: {output['text']!r}")
    assert len(tokens) == 48 or output["finish_reason"] == "stop"
    assert [d for d in disagreements if d.gap >= 1e-3] == []


@pytest.mark.parametrize("form", ["gguf_llm", "hf_llm"])
def test_greedy_answer_is_coherent(form: str, request: pytest.FixtureRequest) -> None:
    llm: LLM = request.getfixturevalue(form)
    (output,) = llm.chat(QUESTION, SamplingParams(temperature=0, max_tokens=48), use_tqdm=False)
    print(f"\n{form}: {output['text']!r}")
    assert "Paris" in output["text"]
    assert output["finish_reason"] == "stop"


def test_sampled_answers_are_those_given_alone(gguf_llm: LLM) -> None:
    questions = ["What is the capital of France?", "Name three colours.", "What is 2 + 2?", "Who wrote Hamlet?"]
    conversations = [[{"role": "user", "content": question}] for question in questions]
    params = [SamplingParams(temperature=t, max_tokens=24, seed=i) for i, t in enumerate((0, 0.6, 0.8, 1.0))]
    together = gguf_llm.chat(conversations, params, use_tqdm=False)
    for conversation, param, output in zip(conversations, params, together, strict=True):
        assert gguf_llm.chat(conversation, param, use_tqdm=False)[0]["token_ids"] == output["token_ids"]


def test_both_forms_render_the_same_chat(gguf_llm: LLM, hf_llm: LLM) -> None:
    gguf, hf = (
        llm.tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
        for llm in (gguf_llm, hf_llm)
    )
    assert gguf == hf
    assert gguf.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    assert gguf_llm.tokenizer.eos_token == hf_llm.tokenizer.eos_token == "<|im_end|>"


# What byte-level BPE and its pre-tokenizer treat specially, between arbitrary text.
pieces = st.one_of(
    st.text(max_size=12),
    st.text("0123456789", min_size=1, max_size=6),
    st.text(" \t\n\r\u00a0\u3000", min_size=1, max_size=4),
    st.sampled_from(["'s", "'LL", " don't", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "é", "e\u0301"]),
    st.sampled_from([" the", "Alice", " rabbit-hole", "def f(x):\n    return x", "日本語", "🦀", "\x00", "\ufffd"]),
)


@given(st.lists(pieces, max_size=8).map("".join))
@settings(max_examples=200, deadline=None)
def test_tokenizers_of_both_forms_agree(gguf_llm: LLM, hf_llm: LLM, hf_tokenizer: Tokenizer, text: str) -> None:
    ids = hf_tokenizer.encode(text, add_special_tokens=False).ids
    for llm in (gguf_llm, hf_llm):
        assert llm.tokenizer.encode(text, add_special_tokens=False) == ids
        assert llm.tokenizer.encode(text) == hf_tokenizer.encode(text).ids
        for skip in (False, True):
            assert llm.tokenizer.decode(ids, skip) == hf_tokenizer.decode(ids, skip_special_tokens=skip)
