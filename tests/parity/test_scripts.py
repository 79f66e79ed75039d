"""`example.py` and `bench.py` as nano-vLLM has them, to the last byte, on our package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nanovllm
from parity.tiny_models import save_qwen3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with a model where the scripts look for one; bench.py draws token ids up to 10,000."""
    home = tmp_path_factory.mktemp("home")
    save_qwen3(home / "huggingface" / "Qwen3-0.6B", vocab_size=10016)
    return home


def run(script: str, reference: Any, home: Path) -> str:
    """Runs a copy of a script, because Python would import what lies beside the original, and returns what it prints."""
    if not reference.live:
        pytest.skip("needs --nano-vllm")
    from parity import standins

    copy = shutil.copy(standins.loaded().checkout / script, home)
    ours = str(Path(nanovllm.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, copy],
        env=os.environ | {"HOME": str(home), "PYTHONPATH": ours},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example(reference: Any, home: Path) -> None:
    text = run("example.py", reference, home)
    assert text.count("Prompt: ") == text.count("Completion: ") == 2
    assert "list all prime numbers within 100" in text


def test_bench(reference: Any, home: Path) -> None:
    text = run("bench.py", reference, home)
    assert text.startswith("Total: 133966tok, ")
    print(text)
