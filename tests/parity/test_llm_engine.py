"""`engine/llm_engine.py`: what each step returns, request by request, and what ends a request."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import LLM, SamplingParams
from parity import counts
from reference import safetensors_io

BLOCK_SIZE = 256
EOS = 2
OPTIONS = {"max_num_batched_tokens": 400, "max_num_seqs": 8, "num_kvcache_blocks": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: str) -> Path:
    """The tiny Qwen3 with one end-of-sequence token, which is likely."""
    directory = Path(shutil.copytree(tiny_qwen3, tmp_path_factory.mktemp("model") / "qwen3"))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": EOS}))
    weights, _ = safetensors_io.load_checkpoint(directory)
    weights["lm_head.weight"] = weights["lm_head.weight"].copy()
    weights["lm_head.weight"][EOS] *= 3
    safetensors_io.save_file(weights, directory / "model.safetensors")
    return directory


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, list[int], dict[str, Any]]:
    """When it arrives, its prompt and its options; prompts share beginnings and end around blocks' ends."""
    length = draw(st.sampled_from([1, 3, 20, 250, 255, 256, 257, 500, 513]))
    token_ids = [(i * i + 7) % 300 for i in range(length)] + draw(st.lists(st.integers(0, 299), max_size=2))
    options = {
        "temperature": draw(st.sampled_from([0.5, 1.0, 3.0])),
        "max_tokens": draw(st.integers(1, 9)),
        "ignore_eos": draw(st.booleans()),
    }
    return draw(st.integers(0, 5)), token_ids, options


class Trace:
    """What an engine's steps return while a program of requests runs on it. Ids count from the program's first."""

    def __init__(self, engine: Any, params: Any, program: list[tuple[int, list[int], dict[str, Any]]]) -> None:
        self.steps: list[Any] = []
        self.completions: dict[int, list[int]] = {}
        for now in itertools.count():
            for _, token_ids, options in (request for request in program if request[0] == now):
                engine.add_request(token_ids, params(**options))
            if engine.is_finished():
                if all(at <= now for at, _, _ in program):
                    break
                continue
            outputs, num_tokens = engine.step()
            self.steps.append((outputs, num_tokens))
            self.completions.update(outputs)

    def from_zero(self) -> list[Any]:
        """The steps with ids as numbers of requests."""
        numbers = {seq_id: i for i, seq_id in enumerate(sorted(self.completions))}
        return [([(numbers[seq_id], ids) for seq_id, ids in outputs], n) for outputs, n in self.steps]


@counts.examples(0.2)
@given(program=st.lists(requests(), min_size=1, max_size=5))
def test_steps(reference: Any, model: Path, program: list[tuple[int, list[int], dict[str, Any]]]) -> None:
    """Given the same tokens, the reference takes the same steps, of as many tokens, and ends the same requests."""
    llm = LLM(str(model), num_threads=1, **OPTIONS)
    ours = Trace(llm, SamplingParams, program)
    llm.exit()
    completions = [ours.completions[seq_id] for seq_id in sorted(ours.completions)]

    def run(seqs: list[Any], _is_prefill: bool) -> list[int]:
        return [completions[seq.seq_id][seq.num_completion_tokens] for seq in seqs]

    reference.sequence.Sequence.counter = itertools.count()
    config = SimpleNamespace(**OPTIONS, eos=EOS, kvcache_block_size=BLOCK_SIZE)
    theirs = Trace(reference.llm_engine.LLMEngine(config, run), reference.sampling_params.SamplingParams, program)
    assert ours.from_zero() == theirs.steps
    counts.add("llm_engine", steps=len(theirs.steps))


def test_generate(reference: Any, model: Path) -> None:
    """Answers come in the order of the prompts, whichever is finished first."""
    llm = LLM(str(model), num_threads=1, **OPTIONS)
    prompts = [[i, i + 1, i + 2] for i in range(6)]
    lengths = [5, 1, 4, 2, 6, 3]
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in lengths]
    answers = [output["token_ids"] for output in llm.generate(prompts, params, use_tqdm=False)]
    llm.exit()
    assert [len(answer) for answer in answers] == lengths

    def run(seqs: list[Any], _is_prefill: bool) -> list[int]:
        return [answers[seq.seq_id][seq.num_completion_tokens] for seq in seqs]

    reference.sequence.Sequence.counter = itertools.count()
    engine = reference.llm_engine.LLMEngine(SimpleNamespace(**OPTIONS, eos=EOS, kvcache_block_size=BLOCK_SIZE), run)
    theirs = [reference.sampling_params.SamplingParams(max_tokens=n, ignore_eos=True) for n in lengths]
    assert engine.generate(prompts, theirs) == answers


# What nano-vLLM fails on, and what happens here instead: the table in docs/architecture.md, under "The engine".


def dies(reference: Any, prompt: list[int], num_blocks: int, **params: Any) -> None:
    """Asserts that nano-vLLM's engine fails an assertion on this request, with which all that is queued is lost."""
    config = SimpleNamespace(**OPTIONS | {"num_kvcache_blocks": num_blocks}, eos=EOS, kvcache_block_size=BLOCK_SIZE)
    engine = reference.llm_engine.LLMEngine(config, lambda seqs, _: [7] * len(seqs))
    with pytest.raises(AssertionError):
        engine.generate([prompt], reference.sampling_params.SamplingParams(**params))


def test_a_prompt_larger_than_the_pool(reference: Any, model: Path) -> None:
    dies(reference, [1] * 257, 1)
    llm = LLM(str(model), num_kvcache_blocks=1, num_threads=1)
    with pytest.raises(ValueError, match=r"257.*1"):
        llm.generate([[1] * 257], use_tqdm=False)
    assert llm.is_finished()
    llm.exit()


def test_a_sequence_that_outgrows_the_pool(reference: Any, model: Path) -> None:
    options = {"max_tokens": 50, "ignore_eos": True}
    dies(reference, [1] * 250, 1, **options)
    llm = LLM(str(model), num_kvcache_blocks=1, num_threads=1)
    (output,) = llm.generate([[1] * 250], SamplingParams(**options), use_tqdm=False)
    assert (output["finish_reason"], len(output["token_ids"])) == ("length", BLOCK_SIZE + 1 - 250)
    llm.exit()


def test_a_sequence_that_reaches_the_longest_length(model: Path) -> None:
    """nano-vLLM goes on, and in the end reads past its rotary table."""
    llm = LLM(str(model), max_model_len=40, num_kvcache_blocks=1, num_threads=1)
    (output,) = llm.generate([[1] * 38], SamplingParams(max_tokens=50, ignore_eos=True), use_tqdm=False)
    assert (output["finish_reason"], len(output["token_ids"])) == ("length", 2)
    with pytest.raises(ValueError, match="40"):
        llm.generate([[1] * 41], use_tqdm=False)
    llm.exit()


@pytest.mark.parametrize(("prompt", "words"), [([], "empty"), ([320], "320"), ([1, -1], "-1")])
def test_bad_prompts(model: Path, prompt: list[int], words: str) -> None:
    """nano-vLLM raises IndexError, crashes on the device or says nothing. Here nothing of the call stays queued."""
    llm = LLM(str(model), num_kvcache_blocks=1, num_threads=1)
    with pytest.raises(ValueError, match=words):
        llm.generate([[1, 2], prompt], use_tqdm=False)
    assert llm.is_finished()
    assert llm.stats()["num_free_blocks"] == 1
    llm.exit()


def test_prompts_and_params_of_different_number(reference: Any, model: Path) -> None:
    config = SimpleNamespace(**OPTIONS, eos=EOS, kvcache_block_size=BLOCK_SIZE)
    engine = reference.llm_engine.LLMEngine(config, lambda seqs, _: [7] * len(seqs))
    params = reference.sampling_params.SamplingParams(max_tokens=1)
    assert engine.generate([[1], [2]], [params]) == [[7]], "the second prompt is dropped without a word"
    llm = LLM(str(model), num_kvcache_blocks=1, num_threads=1)
    with pytest.raises(ValueError, match="2 prompts but 1"):
        llm.generate([[1], [2]], [SamplingParams()], use_tqdm=False)
    llm.exit()


def test_unknown_options_are_named(model: Path) -> None:
    """nano-vLLM drops them without a word."""
    with pytest.warns(UserWarning, match="max_seqs"):
        LLM(str(model), max_seqs=3, num_kvcache_blocks=1, num_threads=1).exit()
