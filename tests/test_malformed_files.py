"""Every malformed file of the fuzzing corpus gives one of our exceptions, in one line that names the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nanovllm import LLM, _core
from nanovllm.exceptions import ModelFormatError, UnsupportedModelError

CORPUS = Path(__file__).parents[1] / "rust" / "fuzz" / "corpus"


def corpus(target: str, *, gguf: bool | None = None) -> list[Path]:
    """The files of a target; GGUF files or others only."""
    files = sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
    return [path for path in files if gguf is None or path.read_bytes().startswith(b"GGUF") == gguf]


def bad(target: str, *, gguf: bool | None = None) -> list[Path]:
    return [path for path in corpus(target, gguf=gguf) if not path.name.startswith("ok-")]


def name(path: Path) -> str:
    return path.name


def expected(path: Path) -> type[ValueError]:
    return UnsupportedModelError if path.name.startswith("Unsupported") else ModelFormatError


def test_there_is_a_corpus() -> None:
    assert len(bad("gguf")) > 50
    assert len(bad("safetensors")) > 25
    assert len(bad("config")) > 40
    assert len(bad("tokenizer_gguf")) > 20


@pytest.mark.parametrize("path", bad("gguf"), ids=name)
def test_a_gguf_file(path: Path) -> None:
    for opener in (_core.GgufFile, LLM):
        with pytest.raises(ModelFormatError) as error:
            opener(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", bad("safetensors"), ids=name)
def test_a_safetensors_file(path: Path, tmp_path: Path, tiny_qwen3: str) -> None:
    with pytest.raises(ModelFormatError) as error:
        _core.SafeTensors(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(Path(tiny_qwen3) / file, tmp_path)
    shutil.copy(path, tmp_path / "model.safetensors")
    with pytest.raises(ModelFormatError, match=r"model\.safetensors: "):
        LLM(tmp_path)


@pytest.mark.parametrize("path", bad("config", gguf=False), ids=name)
def test_a_config(path: Path, tmp_path: Path, tiny_qwen3: str) -> None:
    for file in ("model.safetensors", "tokenizer.json"):
        shutil.copy(Path(tiny_qwen3) / file, tmp_path)
    shutil.copy(path, tmp_path / "config.json")
    with pytest.raises(expected(path)) as error:
        LLM(tmp_path, num_kvcache_blocks=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", bad("config", gguf=True), ids=name)
def test_a_gguf_file_that_describes_no_model(path: Path) -> None:
    with pytest.raises(expected(path)) as error:
        LLM(path, num_kvcache_blocks=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["gguf", "config", "tokenizer_gguf", "safetensors"])
def test_good_files_can_be_read(target: str) -> None:
    """They are in the corpus for the fuzzer to change, and show that not everything is refused."""
    read = 0
    for path in corpus(target, gguf=target != "safetensors"):
        if path.name.startswith("ok-") and path.name != "ok-a_shard_alone":  # whose other shards are missing
            file = _core.SafeTensors(path) if target == "safetensors" else _core.GgufFile(path)
            for name, info in file.tensors.items():
                data = file.raw(name).tobytes()
                assert len(data) == info.nbytes
                assert data in path.read_bytes()
            read += 1
    assert read >= 2
