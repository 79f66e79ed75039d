"""Every family's tiny random models answer as transformers does, from safetensors and GGUF, however they are run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from family_models import CASES, FORMATS, LENGTHS, FamilyModel, expected, make
from golden import family_cases
from nanovllm import LLM, SamplingParams, _core
from test_golden_logits import chunk_sizes

LIMITS = {"hugging_face": 1e-4, "gguf_f32": 1e-4, "gguf_q8_0": 8e-3}
"""The largest error of a logit, three times what is measured; beside quantised weights, activations have 16 bits."""
CUTS = (1, 16, 39, 40, 41, 255, 256)
"""Where prompts are cut: beside windows and the edges of blocks."""

NO_GGUF = "GGUF has no key for what this model does"
CONVERTED = [name for name in CASES if family_cases.case(name)["gguf"] is not None]
REFUSED = [name for name in CASES if family_cases.case(name)["refused_by_gguf"]]

Paths = dict[str, dict[str, Path]]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The files of every model by its name and format."""
    directory = tmp_path_factory.mktemp("families")
    return {name: make(name, directory) for name in CASES}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_logits_are_transformers(paths: Paths, name: str, kind: str) -> None:
    if kind not in paths[name]:
        pytest.skip(NO_GGUF)
    model = FamilyModel(name, kind, paths[name][kind], num_threads=1)
    longest = max(LENGTHS)
    chunks = [chunk_sizes(longest, CUTS), chunk_sizes(longest, range(0, longest, 64)), [1] * longest]
    errors = [model.error(length) for length in LENGTHS] + [model.error(longest, sizes) for sizes in chunks]
    in_blocks = "quantization_config" in family_cases.case(name)["config"]
    assert max(errors) < LIMITS["gguf_q8_0" if in_blocks else kind], errors


@pytest.mark.parametrize("kind", ["hugging_face", "gguf_q8_0"])
@pytest.mark.parametrize("name", CASES)
def test_candle_agrees(paths: Paths, name: str, kind: str) -> None:
    if kind not in paths[name]:
        pytest.skip(NO_GGUF)
    model = FamilyModel(name, kind, paths[name][kind], device="candle-f32")
    assert max(model.error(length) for length in LENGTHS) < LIMITS["hugging_face"]


@pytest.mark.parametrize("name", CASES)
def test_an_answer_from_the_prefix_cache_is_the_same(paths: Paths, name: str) -> None:
    """The second time the whole blocks of the prompt come from the cache, and the first token is transformers'."""
    ids = family_cases.prompt(name, 300, family_cases.case(name)["vocab_size"]).tolist()
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    with LLM(str(paths[name]["hugging_face"]), num_kvcache_blocks=8) as llm:
        first, second = (llm.generate([ids], params, use_tqdm=False)[0] for _ in range(2))
    assert first["token_ids"] == second["token_ids"]
    assert (first["num_cached_tokens"], second["num_cached_tokens"]) == (0, 256)
    _, _, greedy, _ = expected(name, "float32", 300)
    assert first["token_ids"][0] == greedy[-1]


@pytest.mark.parametrize("name", CONVERTED)
def test_gguf_files_are_those_of_llama_cpp(paths: Paths, name: str) -> None:
    """Each tensor has the name, shape and bytes that llama.cpp's converter gives it, and so have the settings.

    Ours may have settings that say what theirs leave to a default.
    """
    converted = family_cases.case(name)["gguf"]
    reader = gguf.GGUFReader(paths[name]["gguf_f32"])
    ours = {t.name: [[int(n) for n in t.shape], t.tensor_type.name, crc32(t.data.tobytes())] for t in reader.tensors}
    assert ours == converted["tensors"]
    settings = {key: field.contents() for key, field in reader.fields.items()}
    for key, value in converted["metadata"].items():
        assert settings.get(key) == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key


@pytest.mark.parametrize("name", REFUSED)
def test_what_gguf_has_no_key_for_is_refused(
    paths: Paths, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["nanovllm", "quantize", str(paths[name]["hugging_face"]), str(tmp_path / "x.gguf"), "--type", "F32"]
    assert _core.run_command(command, Path) == 1
    assert "GGUF has no key for" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


IN_FILES = [
    ("qwen3_moe", "hugging_face", "stay in the file"),
    ("qwen3_moe", "gguf_q8_0", "stay in the file"),
    ("gpt_oss_mxfp4", "gguf_f32", "stay in the file"),
    ("gemma4_experts", "gguf_q8_0", "stay in the file"),
    # Put together from transposed blocks when they are loaded, so that they lie nowhere in the file.
    ("gpt_oss_mxfp4", "hugging_face", "are in memory though there is no room"),
]


@pytest.mark.parametrize(("name", "kind", "words"), IN_FILES)
def test_experts_that_do_not_fit_stay_in_their_file(
    paths: Paths, name: str, kind: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where weights may take next to no memory; every logit is the same."""
    ids = family_cases.prompt(name, 300, family_cases.case(name)["vocab_size"])
    kept = FamilyModel(name, kind, paths[name][kind])
    in_file = FamilyModel(name, kind, paths[name][kind], gpu_memory_utilization=1e-12)
    assert np.array_equal(kept.runner.logits(ids, None), in_file.runner.logits(ids, None))
    with LLM(str(paths[name][kind]), gpu_memory_utilization=1e-12, num_kvcache_blocks=8):
        assert f"GB of experts {words}" in caplog.text


def test_a_device_that_cannot_compute_on_files_says_so(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    path = paths["qwen3_moe"]["gguf_q8_0"]
    with LLM(str(path), gpu_memory_utilization=1e-12, num_kvcache_blocks=8, device="candle"):
        assert "GB of experts are in memory though there is no room" in caplog.text


def test_a_file_of_experts_that_becomes_shorter_is_an_error(paths: Paths, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    shutil.copy(paths["qwen3_moe"]["gguf_f32"], file)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    with LLM(str(file), num_kvcache_blocks=8, gpu_memory_utilization=1e-12) as llm:
        llm.generate([[1, 2, 3]], params, use_tqdm=False)
        os.truncate(file, 5000)
        with pytest.raises(RuntimeError, match=f"{file}: the file was"):
            llm.generate([[1, 2, 3]], params, use_tqdm=False)


def test_a_file_that_becomes_shorter_while_rows_are_read_of_it_is_an_error(paths: Paths, tmp_path: Path) -> None:
    """The embeddings of layers stay in the file, so that a part cut off is met in the middle of a call."""
    file = tmp_path / "model.gguf"
    shutil.copy(paths["gemma4"]["gguf_f32"], file)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    with LLM(str(file), num_kvcache_blocks=8) as llm:
        llm.generate([[1, 2, 3]], params, use_tqdm=False)
        os.truncate(file, 5000)
        with pytest.raises(RuntimeError, match=f"{file}: the file was"):
            llm.generate([[1, 2, 3]], params, use_tqdm=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: None, "gate_up_proj_scales"),
        (lambda scales: scales[:, :, :1], r"gate_up_proj_scales.*\[3, 192, 2\]"),
        (lambda scales: scales.astype(np.float32), "gate_up_proj_scales.*F32"),
    ],
)
def test_blocks_need_an_exponent_each(tmp_path: Path, change: Callable[[np.ndarray], Any], words: str) -> None:
    family_cases.write("gpt_oss_mxfp4", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.experts.gate_up_proj_scales"
    scales = change(tensors.pop(name))
    save_file(
        tensors | ({} if scales is None else {name: np.ascontiguousarray(scales)}), tmp_path / "model.safetensors"
    )
    with pytest.raises(ValueError, match=words):
        LLM(str(tmp_path))


def test_types_of_other_parts_do_not_matter(paths: Paths, tmp_path: Path) -> None:
    """A tower may keep positions as integers, which no weight of a decoder can be."""
    directory = tmp_path / "model"
    shutil.copytree(paths["gemma3_images"]["hugging_face"], directory)
    positions = {"vision_tower.embeddings.position_ids": np.arange(4, dtype=np.int64)}
    save_file(positions, directory / "more.safetensors", {"format": "pt"})
    assert FamilyModel("gemma3_images", "hugging_face", directory).error(17) < LIMITS["hugging_face"]


def test_every_family_has_a_case() -> None:
    """`CASES` names whatever there is code for; a model of images and text is one of text with other parts."""
    configs = [family_cases.case(name)["config"] for name in CASES]
    tested = {config["architectures"][0] for config in configs if "text_config" not in config}
    also_called = {"GraniteMoeSharedForCausalLM"}  # a Granite with experts, of which it has one more
    assert (tested - also_called) | {"LlamaForCausalLM", "Qwen3ForCausalLM"} == set(_core.architectures())


def test_a_head_that_differs_from_the_embedding_is_no_copy(tmp_path: Path) -> None:
    """Some tools train it and leave `tie_word_embeddings` true; transformers then ties nothing."""

    def answer(name: str, *, tied: bool, head: str | None) -> list[int]:
        directory = tmp_path / name
        family_cases.write("qwen2", directory)
        tensors = load_file(directory / "model.safetensors")
        embedding = tensors["model.embed_tokens.weight"]
        if head is not None:
            tensors["lm_head.weight"] = embedding[::-1].copy() if head == "own" else embedding
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        config = json.loads((directory / "config.json").read_text()) | {"tie_word_embeddings": tied}
        (directory / "config.json").write_text(json.dumps(config))
        command = ["nanovllm", "quantize", str(directory), f"{directory}.gguf", "--type", "F32"]
        assert _core.run_command(command, Path) == 0
        answers = []
        for path in (directory, f"{directory}.gguf"):
            llm = LLM(str(path), num_kvcache_blocks=4)
            params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
            answers.append(llm.generate([[5, 6, 7]], params, use_tqdm=False)[0]["token_ids"])
        assert answers[0] == answers[1]
        return answers[0]

    tied, copied = answer("tied", tied=True, head=None), answer("copied", tied=True, head="copy")
    said, own = answer("said", tied=False, head="own"), answer("own", tied=True, head="own")
    assert tied == copied
    assert own == said != tied
