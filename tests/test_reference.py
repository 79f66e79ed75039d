"""The oracles themselves: the numpy reference against transformers' numbers, its parts by their properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from tests.reference.agreement import choice_disagreements, compare, kl_divergence, top2_gap
from tests.reference.gguf_weights import hugging_face_name, permute, unpermute
from tests.reference.rope import inverse_frequencies, rope_parameters
from tests.reference.safetensors_io import (
    DTYPES,
    load_checkpoint,
    load_file,
    round_to_bfloat16,
    save_file,
    widen_bfloat16,
)
from tests.reference.transformer import forward, greedy

GOLDEN = Path(__file__).parent / "golden"
CASES = [("tiny_qwen3", n) for n in (1, 5, 17, 255, 256, 257, 300)] + [("tiny_llama", n) for n in (1, 17, 257)]
ROPE = json.loads((GOLDEN / "rope_scaling.json").read_text())

finite_logits = hnp.arrays(np.float32, (3, 7), elements=st.floats(-80, 80, width=32))


@pytest.mark.parametrize(("name", "length"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_agrees_with_transformers(name: str, length: int, dtype: type) -> None:
    weights, config = load_checkpoint(GOLDEN / name)
    golden = np.load(GOLDEN / f"{name}_logits.npz")
    logits = forward(weights, config, golden[f"ids_{length}"], dtype)
    assert logits.dtype == dtype
    assert np.abs(logits - golden[f"logits_{length}"]).max() < 1e-4


@pytest.mark.parametrize("name", ["tiny_qwen3", "tiny_llama"])
def test_golden_logits_are_not_trivial(name: str) -> None:
    """A model that ignores its context, or whose logits are nearly flat, would prove nothing."""
    golden = np.load(GOLDEN / f"{name}_logits.npz")
    logits = golden["logits_257"]
    assert logits.std(axis=-1).min() > 0.1
    weights, config = load_checkpoint(GOLDEN / name)
    ids = golden["ids_257"].copy()
    ids[0] = (ids[0] + 1) % config["vocab_size"]
    assert np.abs(forward(weights, config, ids)[-1] - logits[-1]).max() > 1e-3


@pytest.mark.parametrize("name", ["tiny_qwen3", "tiny_llama"])
def test_configs_of_both_transformers_mean_the_same(name: str) -> None:
    old, new = (json.loads((GOLDEN / "configs" / f"{name}_transformers{v}.json").read_text()) for v in (4, 5))
    assert rope_parameters(old) == rope_parameters(new)
    spelled_differently = {
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "dtype",
        "torch_dtype",
        "transformers_version",
    }
    assert {k: v for k, v in old.items() if k not in spelled_differently} == {
        k: v for k, v in new.items() if k not in spelled_differently
    }


@pytest.mark.parametrize("name", ROPE)
def test_rope_scaling_agrees_with_transformers(name: str) -> None:
    case = ROPE[name]
    inv_freq, attention_factor = inverse_frequencies(case["config"], case["seq_len"])
    np.testing.assert_allclose(inv_freq, case["inv_freq"], rtol=2e-6)
    assert attention_factor == pytest.approx(case["attention_factor"], rel=1e-12)


def test_causality() -> None:
    """The logits of a prefix do not depend on what follows it."""
    weights, config = load_checkpoint(GOLDEN / "tiny_qwen3")
    ids = np.load(GOLDEN / "tiny_qwen3_logits.npz")["ids_17"]
    np.testing.assert_allclose(forward(weights, config, ids[:9]), forward(weights, config, ids)[:9], atol=1e-5)


def test_greedy_agrees_with_one_teacher_forced_pass() -> None:
    weights, config = load_checkpoint(GOLDEN / "tiny_llama")
    prompt = [5, 6, 7]
    tokens = greedy(weights, config, prompt, 8)
    logits = forward(weights, config, prompt + tokens)
    assert choice_disagreements(logits[len(prompt) - 1 : -1], tokens) == []
    assert greedy(weights, config, prompt, 8, stop=[tokens[2]])[-1] == tokens[2]


@pytest.mark.parametrize("heads", [1, 3, 8])
def test_permutation_pairs_the_halves_of_each_head(heads: int) -> None:
    rows = np.arange(heads * 6 * 2).reshape(heads * 6, 2)
    stored = permute(rows, heads)
    assert stored[:6, 0].tolist() == [0, 6, 2, 8, 4, 10]  # row i, then its partner i + 3
    assert (unpermute(stored, heads) == rows).all()


def test_unknown_gguf_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"blk\.0\.ssm_in\.weight"):
        hugging_face_name("blk.0.ssm_in.weight")


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors_round_trip(tmp_path: Path, dtype: str) -> None:
    weights = {"a": np.array([[1.0, -2.5, 0.0]], np.float32), "b": np.array([0.5, np.inf], np.float32)}
    save_file(weights, tmp_path / "model.safetensors", dtype)
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(weights)
        assert {file.get_slice(name).get_dtype() for name in weights} == {DTYPES[dtype]}
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(loaded[name], array)


@given(hnp.arrays(np.float32, 16, elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_bfloat16_rounds_to_a_nearest_value(x: np.ndarray) -> None:
    bits = round_to_bfloat16(x)
    rounded = widen_bfloat16(bits).astype(np.float64)
    for step in (-1, 1):  # no neighbour is nearer
        neighbour = widen_bfloat16((bits.astype(np.int64) + step).astype(np.uint16)).astype(np.float64)
        comparable = np.isfinite(neighbour)  # below the pattern of zero lies that of a NaN
        assert (np.abs(rounded - x) <= np.abs(neighbour - x))[comparable].all()


def test_bfloat16_keeps_nan_and_breaks_ties_to_even() -> None:
    assert np.isnan(widen_bfloat16(round_to_bfloat16(np.array([np.nan, -np.nan], np.float32)))).all()
    ties = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)
    assert round_to_bfloat16(ties).tolist() == [0x3F80, 0x3F82]


@given(finite_logits, finite_logits)
def test_kl_is_non_negative_and_agrees_with_the_definition(reference: np.ndarray, ours: np.ndarray) -> None:
    kl = kl_divergence(reference, ours)
    assert (kl >= 0).all()
    p, q = (np.exp(x.astype(np.longdouble) - x.max(-1, keepdims=True)) for x in (reference, ours))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    np.testing.assert_allclose(kl, (p * (np.log(p) - np.log(q))).sum(-1).astype(np.float64), rtol=1e-9, atol=1e-12)


@given(finite_logits, st.floats(-50, 50, width=32))
def test_kl_ignores_a_constant(logits: np.ndarray, shift: float) -> None:
    assert kl_divergence(logits, logits).max() == 0
    # Adding the constant rounds the float32 logits, which is the whole difference.
    assert kl_divergence(logits, logits + np.float32(shift)).max() < 1e-8


def test_compare_lists_disagreements_with_the_reference_gap() -> None:
    reference = np.array([[0.0, 3.0, 1.0], [2.0, 1.75, 0.0]], np.float32)
    ours = np.array([[0.0, 3.0, 1.0], [1.0, 1.5, 0.0]], np.float32)
    result = compare(reference, ours)
    assert result.top1 == 0.5
    assert result.max_abs_diff == 1.0
    (only,) = result.disagreements
    assert (only.position, only.reference, only.ours, only.gap) == (1, 0, 1, 0.25)
    assert top2_gap(reference).tolist() == [2.0, 0.25]
    assert "position 1: reference 0, ours 1" in str(result)


@pytest.mark.parametrize("shape", [(0, 3), (2, 4), (3,)])
def test_compare_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        compare(np.zeros((2, 3)) if shape != (0, 3) else np.zeros(shape), np.zeros(shape))
