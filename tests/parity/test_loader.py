"""`utils/loader.py`: every stored tensor in its place, and nothing missing or left over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.exceptions import ModelFormatError
from nanovllm.layers.layernorm import RMSNorm
from nanovllm.layers.linear import ReplicatedLinear
from nanovllm.layers.module import Module
from nanovllm.models.qwen3 import Qwen3ForCausalLM
from nanovllm.utils import context
from nanovllm.utils.loader import default_weight_loader, load_model
from parity import counts, tiny_models
from parity.arrays import Rng, nmse, rngs
from parity.fixture import Reference
from reference import safetensors_io

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    yield
    context.reset_context()


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Config.json of a Qwen3, or, without an architecture, of a model with biases and without norms of heads."""
    config = tiny_models.CONFIG | {
        "hidden_size": draw(st.sampled_from([4, 10])),
        "intermediate_size": draw(st.integers(1, 9)),
        "num_hidden_layers": draw(st.integers(1, 12)),
        "num_attention_heads": 2 * draw(st.integers(1, 2)),
        "num_key_value_heads": draw(st.integers(1, 2)),
        "head_dim": 2,
        "vocab_size": draw(st.integers(1, 9)),
        "max_position_embeddings": 8,
        "tie_word_embeddings": draw(st.booleans()),
        "attention_bias": draw(st.booleans()),
    }
    if config["attention_bias"]:
        del config["architectures"], config["model_type"]
    return config


def draw_stored(rng: Rng, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random tensors that bfloat16 and float16 can hold."""
    shapes = tiny_models.shapes(config)
    if config["attention_bias"]:
        shapes = {name: shape for name, shape in shapes.items() if "q_norm" not in name and "k_norm" not in name}
        projections = [name for name in shapes if any(f"{kind}_proj" in name for kind in "qkv")]
        shapes |= {name.replace("weight", "bias"): shapes[name][:1] for name in projections}
    return {name: rng.integers(-99, 99, shape).astype(np.float32) / 16 for name, shape in shapes.items()}


def save(directory: Path, stored: Mapping[str, np.ndarray], dtype: str, files: int = 1) -> None:
    """Writes the tensors, dealt out over files in their order."""
    for i in range(files):
        part = {name: stored[name] for name in list(stored)[i::files]}
        safetensors_io.save_file(part, directory / f"model-{i}.safetensors", dtype)


def loaded(config: dict[str, Any], directory: Path) -> Qwen3ForCausalLM:
    model = Qwen3ForCausalLM(SimpleNamespace(**config))
    load_model(model, directory)
    return model


@counts.examples()
@given(data=st.data(), rng=rngs, config=configs(), files=st.integers(1, 3))
def test_every_parameter(
    reference: Reference, data: st.DataObject, rng: Rng, config: dict[str, Any], files: int
) -> None:
    dtype = "bfloat16" if reference.live else data.draw(st.sampled_from(list(safetensors_io.DTYPES)))
    stored = draw_stored(rng, config)
    order = data.draw(st.permutations(sorted(stored)))
    with TemporaryDirectory() as path:
        save(Path(path), {name: stored[name] for name in order}, dtype, files)
        model = loaded(config, Path(path))
        expected = reference.loader.load_model(Path(path), SimpleNamespace(**config))
    got = dict(model.named_parameters())
    assert expected.keys() - got.keys() == ({"lm_head.weight"} if config["tie_word_embeddings"] else set())
    assert got.keys() <= expected.keys()
    for name, values in expected.items():
        parameter = model.get_parameter(name)
        assert parameter.data.dtype.name == dtype
        np.testing.assert_array_equal(parameter.data.astype(np.float32), values)


@counts.examples(0.5)
@given(data=st.data(), rng=rngs, config=configs())
def test_missing_and_unknown(data: st.DataObject, rng: Rng, config: dict[str, Any]) -> None:
    stored = draw_stored(rng, config)
    missing = data.draw(st.lists(st.sampled_from(sorted(stored)), unique=True, max_size=3))
    unknown = data.draw(
        st.lists(st.sampled_from(["model.layers.99.mlp.up_proj.weight", "lm_head.bias", "q_proj"]), unique=True)
    )
    # A buffer that old releases of transformers stored is neither missing nor unknown.
    kept = {name: x for name, x in stored.items() if name not in missing}
    kept |= {name: np.zeros(2, np.float32) for name in [*unknown, "model.layers.0.self_attn.rotary_emb.inv_freq"]}
    model = Qwen3ForCausalLM(SimpleNamespace(**config))
    with TemporaryDirectory() as path:
        save(Path(path), kept, "float32")
        if not missing and not unknown:
            load_model(model, path)
            return
        with pytest.raises(ModelFormatError) as caught:
            load_model(model, path)
    named = missing or unknown
    assert str(caught.value).endswith(f": {', '.join(sorted(named))}")
    assert ("missing from" if missing else "does not have") in str(caught.value)
    assert all(parameter.unloaded for name, parameter in model.named_parameters() if "norm" not in name)


@pytest.mark.parametrize("stored_as", [["model.embed_tokens"], ["lm_head"], ["model.embed_tokens", "lm_head"]])
def test_a_tied_parameter_has_two_names(directory: Path, stored_as: list[str]) -> None:
    config = tiny_models.CONFIG | {"tie_word_embeddings": True}
    stored = {name: np.zeros(shape, np.float32) for name, shape in tiny_models.shapes(config).items()}
    shape = stored.pop("model.embed_tokens.weight").shape
    stored |= {f"{name}.weight": np.full(shape, i + 1, np.float32) for i, name in enumerate(stored_as)}
    save(directory, stored, "float32")
    model = loaded(config, directory)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    np.testing.assert_array_equal(model.lm_head.weight.data, np.ones(shape))


class Unpacked(Module):
    """A model of its own, without packed modules."""

    def __init__(self) -> None:
        self.first = ReplicatedLinear(2, 3, bias=True)
        self.norm = RMSNorm(3)


def test_a_model_without_packed_modules(directory: Path) -> None:
    stored = {
        "first.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
        "first.bias": np.arange(3, dtype=np.float32),
        "norm.weight": np.full(3, 2, np.float32),
    }
    model = Unpacked()
    safetensors_io.save_file(stored, directory / "any.safetensors")
    load_model(model, directory)
    for name, values in stored.items():
        np.testing.assert_array_equal(model.get_parameter(name).data, values)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.k_proj.weight"])
def test_a_tensor_that_does_not_fit(directory: Path, name: str) -> None:
    config = tiny_models.CONFIG
    stored = {n: np.zeros(shape, np.float32) for n, shape in tiny_models.shapes(config).items()}
    stored[name] = np.zeros((3, 5), np.float32)
    save(directory, stored, "float32")
    with pytest.raises(ModelFormatError, match=rf"tensor '{name}': expected a tensor of shape .*, got \[3, 5\]"):
        loaded(config, directory)


def test_no_files(directory: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"no \*\.safetensors file"):
        load_model(Unpacked(), directory)


def test_the_default_loader_replaces_everything() -> None:
    layer = ReplicatedLinear(2, 3)
    default_weight_loader(layer.weight, np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(layer.weight.data, np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"expected a tensor of shape \[3, 2\], got \[2, 3\]"):
        default_weight_loader(layer.weight, np.ones((2, 3), np.float32))


@pytest.mark.parametrize("name", ["tiny_qwen3", "tiny_llama"])
def test_a_loaded_model_gives_the_logits_of_transformers(name: str) -> None:
    config = json.loads((GOLDEN / name / "config.json").read_text())
    model = loaded(config, GOLDEN / name)
    golden = np.load(GOLDEN / f"{name}_logits.npz")
    for key in golden.files:
        if not key.startswith("ids_"):
            continue
        ids = golden[key]
        n = np.array([0, len(ids)])
        context.set_context(True, n, n, len(ids), len(ids))
        hidden = model(ids, np.arange(len(ids)))
        context.set_context(False)  # logits of every row
        assert nmse(model.compute_logits(hidden), golden[f"logits_{key.removeprefix('ids_')}"]) < 1e-9
