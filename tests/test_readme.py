"""What the documents show runs, and what they name exists: Python blocks, examples, Makefile targets, tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import download_demo_model
from nanovllm import _core

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
MODEL = "/path/to/model.gguf"


def run(*arguments: str) -> str:
    child = subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, encoding="utf-8", timeout=600
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_the_readme_has_python_blocks() -> None:
    assert len(BLOCKS) >= 2
    assert all(MODEL in block for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_readme_block_runs(block: str, demo_model: str) -> None:
    assert run("-c", block.replace(f'"{MODEL}"', repr(demo_model))).strip()


def test_example_answers_both_prompts(demo_model: str) -> None:
    output = run(str(ROOT / "examples" / "example.py"), demo_model)
    assert len(re.findall(r"^Prompt: '<\|im_start\|>", output, re.MULTILINE)) == 2
    assert len(re.findall(r"^Completion: ['\"]\w", output, re.MULTILINE)) == 2
    assert "output tok/s" in output


@pytest.mark.parametrize("arguments", [[], ["the demo model"]], ids=["no argument", "a model"])
def test_offline_batch_example_answers_every_task(demo_model: str, arguments: list[str]) -> None:
    lines = run(str(ROOT / "examples" / "offline_batch.py"), *([demo_model] if arguments else [])).splitlines()
    answers = dict(line.split(":", 1) for line in lines if re.match(r"[A-Z]\w+: ", line))
    assert len(answers) == 22
    assert all(answer.strip() for answer in answers.values())
    assert "Paris" in answers["France"]
    assert "Tokyo" in answers["Japan"]
    assert re.fullmatch(r"22 tasks in .* output tokens \(\d+ output tok/s\)", lines[-1])


def test_the_readme_lists_every_architecture() -> None:
    listed = re.findall(r"^\| `(\w+)` \| `([\w-]+)` \| \w", README, re.MULTILINE)
    assert dict(listed) == _core.architectures()
    assert len(listed) == len(dict(listed))


def test_the_readme_says_which_rust_it_takes() -> None:
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    version = re.search(r'^rust-version = "([\d.]+)"', manifest, re.MULTILINE)
    assert version is not None
    assert re.findall(r"Rust (\d+\.\d+)", README) == [version[1]] * 2


def test_the_readme_says_where_the_demo_model_lies() -> None:
    assert "~/.cache/nanovllm-rs" in README
    assert Path("~/.cache/nanovllm-rs").expanduser() == download_demo_model.FOLDER


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "README.md"]:
        for target in re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8")):
            assert target in targets, f"{document.name}: make {target}"


def test_the_map_of_the_tests_is_complete() -> None:
    """Every place that tests/README.md names is there, and every file of tests is named."""
    tests = ROOT / "tests"
    named = set(re.findall(r"`([\w./]+(?:\.\w+|/))`", (tests / "README.md").read_text(encoding="utf-8")))
    assert not [place for place in named if not (tests / place).exists() and not (ROOT / place).exists()]
    python = {file.relative_to(tests).as_posix() for file in tests.rglob("test_*.py")}
    rust = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("rust/*/tests/*.rs")}
    assert not (python | rust) - named
