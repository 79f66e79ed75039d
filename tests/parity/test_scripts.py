"""`example.py` and `bench.py`: ours, and nano-vLLM's to the last byte, each to its end on this package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nanovllm
from parity.tiny_models import save_qwen3

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with a model where the scripts look for one; bench.py draws token ids up to 10,000."""
    home = tmp_path_factory.mktemp("home")
    save_qwen3(home / "huggingface" / "Qwen3-0.6B", vocab_size=10016)
    return home


def run(script: Path, home: Path, *arguments: str) -> str:
    """Runs a script and returns what it prints."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"HOME": str(home), "PYTHONPATH": str(Path(nanovllm.__file__).parents[1])},
        cwd=home,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_our_example(home: Path) -> None:
    text = run(ROOT / "examples" / "example.py", home, str(home / "huggingface" / "Qwen3-0.6B"))
    assert text.count("Prompt: ") == text.count("Completion: ") == 2


def test_our_bench(home: Path) -> None:
    arguments = [str(home / "huggingface" / "Qwen3-0.6B"), "--num-seqs", "3", "--max-output-len", "110"]
    assert run(ROOT / "bench" / "bench.py", home, *arguments).startswith("Total: 3")


def test_our_bench_has_the_requests_of_nano_vllms_readme() -> None:
    spec = importlib.util.spec_from_file_location("bench", ROOT / "bench" / "bench.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    prompts, lengths = bench.requests(256, 1024, 1024)
    assert (len(prompts), sum(lengths)) == (256, 133_966)


@pytest.fixture
def nano_vllms(nano_vllm: Any, home: Path) -> Any:
    """Makes a copy of one of nano-vLLM's scripts: beside the original, Python would import what lies there."""
    return lambda name: Path(shutil.copy(nano_vllm.checkout / name, home))


def test_nano_vllms_example(nano_vllms: Any, home: Path) -> None:
    text = run(nano_vllms("example.py"), home)
    assert text.count("Prompt: ") == text.count("Completion: ") == 2
    assert "list all prime numbers within 100" in text


def test_nano_vllms_bench(nano_vllms: Any, home: Path) -> None:
    assert run(nano_vllms("bench.py"), home).startswith("Total: 133966tok, ")
