"""Fixtures that the tests share: checkpoints small enough to commit, the demo model, and an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import download_demo_model
from nanovllm import LLM

GOLDEN = Path(__file__).parent / "golden"

# Where the variable CI is set, hypothesis draws the same examples every time. New ones find what the first did not.
settings.register_profile("drawn", settings.default, derandomize=False)
settings.load_profile("drawn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wheel", metavar="PATH", help="a wheel of this checkout, for test_wheel.py")


@pytest.fixture(scope="session")
def demo_model() -> str:
    """The path of the demo model, which is downloaded the first time."""
    return str(download_demo_model.demo_model())


@pytest.fixture(scope="session", params=["tiny_llama", "tiny_qwen3"])
def tiny_model(request: pytest.FixtureRequest) -> str:
    """A directory with a random float32 checkpoint: each of the two architectures in turn."""
    return str(GOLDEN / request.param)


@pytest.fixture(scope="session")
def tiny_qwen3() -> str:
    return str(GOLDEN / "tiny_qwen3")


@pytest.fixture
def llm(tiny_qwen3: str) -> Iterator[LLM]:
    """An idle engine of its own for each test, with a cache of 16 blocks, which must all be free afterwards."""
    llm = LLM(tiny_qwen3, num_kvcache_blocks=16, num_threads=1)
    yield llm
    stats = llm.stats()
    assert stats["num_free_blocks"] == stats["num_kvcache_blocks"] == 16
    assert llm.is_finished()
    llm.exit()
