"""What the distribution promises: light imports, types, and nothing beside the package in it."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import nanovllm


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


def test_generating_imports_no_torch(tiny_qwen3: str) -> None:
    code = f"from nanovllm import LLM\nLLM({tiny_qwen3!r}, num_kvcache_blocks=1).generate('a', use_tqdm=False)"
    loaded = modules_after(code)
    assert not loaded & {"torch", "transformers", "triton", "flash_attn", "safetensors", "gguf"}
    # A model on this machine needs no hub client, which takes longer to import than everything else.
    assert "huggingface_hub" not in loaded


def test_only_four_packages_are_required() -> None:
    requirements = importlib.metadata.requires("nanovllm-rs") or []
    required = {re.split(r"[\s<>=;\[]", line)[0] for line in requirements if "extra ==" not in line}
    assert required == {"huggingface-hub", "numpy", "tokenizers", "tqdm"}


def test_one_version_of_tokenizers_is_compiled() -> None:
    """The version that candle-core uses: a second one takes minutes to compile and megabytes in the extension."""
    lock = (Path(__file__).parent.parent / "Cargo.lock").read_text(encoding="utf-8")
    assert len(re.findall(r'^name = "tokenizers"$', lock, re.MULTILINE)) == 1


def test_the_package_is_typed() -> None:
    package = Path(nanovllm.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()


def test_public_names() -> None:
    assert sorted(nanovllm.__all__) == [
        "AsyncLLM",
        "CompletionOutput",
        "EmbeddingOutput",
        "LLM",
        "Logprob",
        "RequestOutput",
        "RequestOutputKind",
        "SamplingParams",
        "ScoreOutput",
        "__version__",
    ]
