"""The demo model answers sensibly, through the chat template in its GGUF file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nanovllm import LLM, SamplingParams


@pytest.fixture(scope="module")
def llm(demo_model: str) -> LLM:
    return LLM(demo_model, num_kvcache_blocks=16)


QUESTION = [{"role": "user", "content": "Name three fruits."}]
GREEDY = SamplingParams(temperature=0, max_tokens=40)


def test_it_names_three_fruits(llm: LLM) -> None:
    (output,) = llm.chat(QUESTION, GREEDY, use_tqdm=False)
    assert output["text"] == "1. Bananas\n2. Oranges\n3. Grapes"
    assert output["finish_reason"] == "stop"
    assert output["token_ids"][-1] == llm.tokenizer.eos_token_id


def test_text_keeps_special_tokens_unless_asked(llm: LLM) -> None:
    prompt = llm.tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    (kept,) = llm.generate([prompt], GREEDY, use_tqdm=False)
    (skipped,) = llm.generate([prompt], GREEDY, use_tqdm=False, skip_special_tokens=True)
    assert kept["text"] == skipped["text"] + "<|im_end|>"


def test_several_conversations_at_once(llm: LLM) -> None:
    questions = [[{"role": "user", "content": f"What is {n} plus {n}?"}] for n in range(3)]
    outputs = llm.chat(questions, GREEDY, use_tqdm=False)
    assert [llm.chat(q, GREEDY, use_tqdm=False)[0] for q in questions] == [
        output | {"num_cached_tokens": 0} for output in outputs
    ]


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("streaming.py", "stop: '8.'"),
        ("async_many.py", "Jupiter:"),
        ("embeddings.py", "A kitten was napping"),
        ("threads.py", "4 + 4:"),
    ],
)
def test_the_examples_run(demo_model: str, example: str, words: str) -> None:
    script = Path(__file__).parent.parent / "examples" / example
    done = subprocess.run([sys.executable, str(script), demo_model], capture_output=True, text=True, check=True)
    assert words in done.stdout
    assert done.stderr == ""
