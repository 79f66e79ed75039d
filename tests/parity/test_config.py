"""`config.py`: fields, order, defaults, what is derived from the model, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.config import Config
from parity import counts

OPTIONS = {
    "max_num_batched_tokens": st.integers(1, 2**20),
    "max_num_seqs": st.integers(1, 2**12),
    "max_model_len": st.integers(1, 2**20),
    "gpu_memory_utilization": st.floats(0.01, 1.0),
    "tensor_parallel_size": st.just(1),
    "enforce_eager": st.booleans(),
    "hf_config": st.none(),
    "eos": st.integers(-1, 10**6),
    "kvcache_block_size": st.integers(1, 8).map(lambda n: 256 * n),
    "num_kvcache_blocks": st.just(-1) | st.integers(1, 10**6),
}
MODEL_FIELDS = (
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "tie_word_embeddings",
    "vocab_size",
)
"""What nano-vLLM's model reads of `hf_config`."""


def assert_equal(ours: Any, theirs: Any) -> None:
    for name in OPTIONS:
        if name != "hf_config":
            assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.model == theirs.model
    for name in MODEL_FIELDS:
        assert getattr(ours.hf_config, name) == getattr(theirs.hf_config, name), name


@counts.examples(0.3)
@given(keywords=st.fixed_dictionaries({}, optional=OPTIONS))
def test_keywords(reference: Any, tiny_qwen3: str, keywords: dict[str, Any]) -> None:
    assert_equal(Config(tiny_qwen3, **keywords), reference.config.make(tiny_qwen3, **keywords))


@counts.examples(0.3)
@given(values=st.tuples(*OPTIONS.values()), count=st.integers(0, len(OPTIONS)))
def test_positions(reference: Any, tiny_qwen3: str, values: tuple[Any, ...], count: int) -> None:
    assert_equal(Config(tiny_qwen3, *values[:count]), reference.config.make(tiny_qwen3, *values[:count]))


def test_fields_begin_with_theirs(reference: Any) -> None:
    fields = dataclasses.fields(Config)
    theirs = reference.config.field_names()
    assert theirs == ["model", *OPTIONS] == [field.name for field in fields][: len(theirs)]
    assert {field.name: field.default for field in fields if field.name in OPTIONS} == reference.config.DEFAULTS


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: str) -> Path:
    """A copy of the model, to change."""
    return Path(shutil.copytree(tiny_qwen3, tmp_path_factory.mktemp("model") / "qwen3"))


@counts.examples(0.3)
@given(max_model_len=st.integers(1, 3000), limit=st.integers(1, 3000))
def test_the_model_limits_the_length(reference: Any, own_model: Path, max_model_len: int, limit: int) -> None:
    values = json.loads((own_model / "config.json").read_text())
    (own_model / "config.json").write_text(json.dumps(values | {"max_position_embeddings": limit}))
    ours = Config(str(own_model), max_model_len=max_model_len)
    theirs = reference.config.make(str(own_model), max_model_len=max_model_len)
    assert ours.max_model_len == theirs.max_model_len == min(max_model_len, limit)


@counts.examples(0.3)
@given(
    option=st.one_of(
        st.tuples(st.just("kvcache_block_size"), st.integers(1, 4096).filter(lambda n: n % 256)),
        st.tuples(st.just("tensor_parallel_size"), st.integers(max_value=0) | st.integers(min_value=9)),
    )
)
def test_what_nano_vllm_refuses(reference: Any, tiny_qwen3: str, option: tuple[str, int]) -> None:
    name, value = option
    with pytest.raises(AssertionError):
        reference.config.make(tiny_qwen3, **{name: value})
    with pytest.raises(ValueError, match=name):
        Config(tiny_qwen3, **{name: value})


def test_a_model_that_is_not_there(reference: Any, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        reference.config.make(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="none"):
        Config(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kvcache_block_size", 0),
        ("kvcache_block_size", -256),
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", 0),
        ("max_model_len", -1),
        ("gpu_memory_utilization", 0.0),
        ("num_kvcache_blocks", 0),
    ],
)
def test_what_nano_vllm_fails_on_later(tiny_qwen3: str, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Config(tiny_qwen3, **{name: value})
