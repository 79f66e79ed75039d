"""nano-vLLM itself, on the stand-ins, from a checkpoint to text."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import nanovllm
from parity.fixture import Reference
from reference import safetensors_io, transformer


@pytest.fixture(scope="session")
def bf16_qwen3(tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: str) -> Path:
    """The tiny Qwen3 in bfloat16."""
    directory = tmp_path_factory.mktemp("bf16") / "qwen3"
    shutil.copytree(tiny_qwen3, directory)
    weights, config = safetensors_io.load_checkpoint(directory)
    safetensors_io.save_file(weights, directory / "model.safetensors", "bfloat16")
    (directory / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return directory


def test_it_generates(reference: Reference, bf16_qwen3: Path) -> None:
    if not reference.live:
        pytest.skip("needs --nano-vllm")
    from parity import standins

    nano = standins.loaded()
    assert sys.modules["nanovllm"] is nanovllm
    assert Path(nano["llm"].__file__).is_relative_to(nano.checkout)
    llm = nano.llm(bf16_qwen3, 4 << 20, max_num_batched_tokens=300, max_model_len=300)
    params = nano["sampling_params"].SamplingParams(temperature=1e-6, max_tokens=20, ignore_eos=True)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 300, n).tolist() for n in (3, 40, 270)]
    try:
        outputs = llm.generate([*prompts, "The Rabbit-Hole"], params, use_tqdm=False)
    finally:
        nano.close(llm)
    weights, config = safetensors_io.load_checkpoint(bf16_qwen3)
    for prompt, output in zip(prompts, outputs, strict=False):  # the text is a fourth
        chosen = output["token_ids"]
        assert len(chosen) == 20
        scores = transformer.forward(weights, config, [*prompt, *chosen[:-1]])[len(prompt) - 1 :]
        lost = scores.max(axis=-1) - scores[range(20), chosen]
        assert lost.max() < 0.02 * scores.std(), "the likeliest token, but where bfloat16 cannot tell"
