"""`models/qwen3.py`: each module and the whole model, over every kind of step."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.layers.linear import RowParallelLinear
from nanovllm.models import qwen3
from nanovllm.utils import context
from parity import counts
from parity.arrays import BFLOAT16, DEVICES, FLOAT32, Rng, dtypes, nmse, normal, rngs
from parity.arrays import check as check_one
from parity.fixture import LIVE_TOLERANCE, Reference
from parity.steps import Step, steps

POOLED = [0.0, 0.0]
"""Squared differences and squared values of a test's examples in 16 bits."""


@pytest.fixture(autouse=True)
def no_context() -> Iterator[None]:
    POOLED[:] = 0.0, 0.0
    yield
    context.reset_context()
    difference, power = POOLED
    assert difference <= LIVE_TOLERANCE * power


def check(reference: Reference, kind: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Checks as for one operation. But a module in 16 bits rounds after each of its operations, and that can add up.

    The tolerance then holds for all examples of a test together, and five times it for each.
    """
    if got.dtype == FLOAT32:
        check_one(reference, kind, got, expected)
        return
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    own, other = got.astype(np.float64), expected.astype(np.float64)
    difference, power = float(((own - other) ** 2).sum()), float((other**2).sum())
    assert difference <= 5 * LIVE_TOLERANCE * power
    POOLED[0] += difference
    POOLED[1] += power


@st.composite
def configs(draw: st.DrawFn, reference: Reference, dtype: np.dtype) -> SimpleNamespace:
    """Small models: Qwen3, one of no known architecture (nano-vLLM's rules), and, which nano-vLLM has not, Llama.

    In 16 bits they are wider: the errors of single roundings then average out.
    """
    exact = dtype == FLOAT32
    kind = draw(st.sampled_from(["qwen3", "unknown"] if reference.live else ["qwen3", "unknown", "llama"]))
    # nano-vLLM takes the bias of a Qwen3 for a sign that it has no norms.
    bias = draw(st.booleans()) if kind != "qwen3" or not reference.live else False
    kv_heads, head_dim = draw(st.integers(1, 2)), draw(st.sampled_from([2, 8, 16, 24] if exact else [32, 48]))
    heads = kv_heads * draw(st.integers(1, 3))
    config = SimpleNamespace(
        hidden_size=draw(st.sampled_from([8, 20, 48] if exact else [48, 70])),
        intermediate_size=draw(st.sampled_from([6, 33, 64] if exact else [64, 81])),
        num_hidden_layers=draw(st.integers(1, 2)),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=draw(st.sampled_from([16, 40])),
        max_position_embeddings=64,
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
        rope_theta=draw(st.sampled_from([10000.0, 1000000.0])),
        rope_scaling=None,
        hidden_act="silu",
        attention_bias=bias,
        tie_word_embeddings=draw(st.booleans()),
        qk_norm=kind == "qwen3" or (kind == "unknown" and not bias),
    )
    if kind != "unknown":
        config.model_type = kind
    if kind == "llama":
        config.mlp_bias = draw(st.booleans())
    return config


def fill(module: Any, rng: Rng, dtype: np.dtype) -> dict[str, np.ndarray]:
    """Sets every parameter of a module, norms around 1, and returns them by name.

    As in a trained model, the residual stream is larger than what a module adds to it.
    """
    parameters = {}
    for name, parameter in module.named_parameters():
        scale = 1.0 if "embed" in name else 0.3
        if "norm" not in name and "embed" not in name and len(parameter.shape) == 2:
            scale = 0.5 * parameter.shape[1] ** -0.5
        values = normal(rng, parameter.shape, FLOAT32, scale) + ("norm" in name)
        parameter.data = parameters[name] = values.astype(dtype)
    return parameters


def draw_caches(rng: Rng, config: Any, step: Step, dtype: np.dtype, layers: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Caches that hold something everywhere, for each layer; empty ones where the step has none."""
    shape = (step.num_blocks, step.block_size, config.num_key_value_heads, config.head_dim)
    return [(normal(rng, shape, dtype), normal(rng, shape, dtype)) for _ in range(layers)]


def give_caches(module: Any, caches: list[tuple[np.ndarray, np.ndarray]]) -> None:
    layers = [layer for layer in module.modules() if hasattr(layer, "k_cache")]
    for layer, (k_cache, v_cache) in zip(layers, caches, strict=True):
        layer.k_cache, layer.v_cache = k_cache, v_cache


def copies(caches: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(keys.copy(), values.copy()) for keys, values in caches]


def check_caches(ours: Any, theirs: Any, before: Any, step: Step, dtype: np.dtype) -> None:
    """Stored rows agree, and nothing else was written."""
    if step.num_blocks == 0:
        return
    stored = np.zeros(step.num_blocks * step.block_size, bool)
    slots = step.context.get("slot_mapping", np.array([], int))
    stored[slots[slots != -1]] = True
    for layers in zip(ours, theirs, before, strict=True):
        for own, expected, old in zip(*layers, strict=True):
            own, expected, old = (cache.reshape(len(stored), -1) for cache in (own, expected, old))  # noqa: PLW2901
            np.testing.assert_array_equal(own[~stored], old[~stored])
            assert nmse(own[stored], expected[stored]) <= (1e-9 if dtype == FLOAT32 else LIVE_TOLERANCE)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, step=steps())
def test_attention(reference: Reference, device: str, data: st.DataObject, rng: Rng, step: Step) -> None:
    dtype = data.draw(dtypes(reference))
    config = data.draw(configs(reference, dtype))
    module = qwen3.Qwen3DecoderLayer(config, device=device).self_attn
    if reference.live:
        config.qk_norm = not config.attention_bias
    parameters = fill(module, rng, dtype)
    before = draw_caches(rng, config, step, dtype, 1)
    ours, theirs = copies(before), copies(before)
    give_caches(module, ours)
    context.set_context(**step.context)
    x = normal(rng, (step.rows, config.hidden_size), dtype)
    expected = reference.qwen3.attention(parameters, config, step.positions, x, theirs[0], context.get_context())
    check(reference, "attention", module(step.positions, x), expected)
    check_caches(ours, theirs, before, step, dtype)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, rows=st.integers(1, 20))
def test_mlp(reference: Reference, device: str, data: st.DataObject, rng: Rng, rows: int) -> None:
    dtype = data.draw(dtypes(reference))
    sizes = st.integers(1 if dtype == FLOAT32 else 40, 70)
    hidden, inner = data.draw(sizes), data.draw(sizes)
    module = qwen3.Qwen3MLP(hidden, inner, "silu", device=device)
    parameters = fill(module, rng, dtype)
    x = normal(rng, (rows, hidden), dtype)
    got, expected = module(x), reference.qwen3.mlp(parameters, x)
    if hidden >= 8:
        check(reference, "linear", got, expected)
    else:
        # So few sums may all cancel to a thousandth of their terms, and rounding errors are in proportion to the terms:
        # those of gate and up, and what they become.
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        exact = x.astype(np.float64)
        weights = parameters["gate_up_proj.weight"].T.astype(np.float64)
        gate, up = np.split(exact @ weights, 2, axis=1)
        gate_terms, up_terms = np.split(abs(exact) @ abs(weights), 2, axis=1)
        terms = (gate_terms * abs(up) + abs(gate) * up_terms) / (1 + np.exp(-gate))
        terms = terms**2 @ parameters["down_proj.weight"].T.astype(np.float64) ** 2
        error = (got.astype(np.float64) - expected.astype(np.float64)) ** 2
        assert error.sum() <= reference.tolerance("linear") / 4000 * terms.sum()


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, step=steps(), has_residual=st.booleans())
def test_decoder_layer(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, step: Step, has_residual: bool
) -> None:
    dtype = data.draw(dtypes(reference))
    config = data.draw(configs(reference, dtype))
    module = qwen3.Qwen3DecoderLayer(config, device=device)
    parameters = fill(module, rng, dtype)
    before = draw_caches(rng, config, step, dtype, 1)
    ours, theirs = copies(before), copies(before)
    give_caches(module, ours)
    context.set_context(**step.context)
    x, residual = (normal(rng, (step.rows, config.hidden_size), dtype) for _ in range(2))
    residual = residual if has_residual else None
    got = module(step.positions, x, residual)
    expected = reference.qwen3.decoder_layer(
        parameters, config, step.positions, x, residual, theirs[0], context.get_context()
    )
    if dtype != FLOAT32:
        # The output of the MLP is added to the stream, so its rounding errors are judged beside that sum.
        got, expected = ((total + hidden, total) for hidden, total in (got, expected))
    for own, other in zip(got, expected, strict=True):
        check(reference, "attention", own, other)
    check_caches(ours, theirs, before, step, dtype)


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, step=steps())
def test_model_and_logits(reference: Reference, device: str, data: st.DataObject, rng: Rng, step: Step) -> None:
    dtype = data.draw(dtypes(reference))
    config = data.draw(configs(reference, dtype))
    module = qwen3.Qwen3ForCausalLM(config, device=device)
    parameters = fill(module, rng, dtype)
    before = draw_caches(rng, config, step, dtype, config.num_hidden_layers)
    ours, theirs = copies(before), copies(before)
    give_caches(module, ours)
    context.set_context(**step.context)
    ids = rng.integers(0, config.vocab_size, step.rows)
    got = module(ids, step.positions)
    inner = {name.removeprefix("model."): p for name, p in parameters.items() if name.startswith("model.")}
    expected = reference.qwen3.model(inner, config, ids, step.positions, theirs, context.get_context())
    check(reference, "attention", got, expected)
    check_caches(ours, theirs, before, step, dtype)
    head = parameters.get("lm_head.weight", parameters["model.embed_tokens.weight"])
    offsets = step.context.get("cu_seqlens_q")
    logits, others = module.compute_logits(got), reference.embed_head.logits(expected, head, 0, 1, offsets)
    check(reference, "linear" if dtype != FLOAT32 else "attention", logits, others)
    assert_same_choice(logits, others, dtype)


def assert_same_choice(logits: np.ndarray, others: np.ndarray, dtype: np.dtype) -> None:
    """The first choice is the same, unless the second is within two steps of bfloat16 of it."""
    for own, other in zip(logits.astype(np.float64), others.astype(np.float64), strict=True):
        second, first = np.sort(other)[-2:]
        step = 2.0 ** (np.floor(np.log2(max(abs(first), 1e-30))) - 7) if dtype == BFLOAT16 else abs(first) * 2.0**-10
        if first - second > 2 * step:
            assert own.argmax() == other.argmax()


@counts.examples(0.3)
@given(rng=rngs, step=steps(), tp_size=st.sampled_from([2, 4]))
def test_ranks_add_up(rng: Rng, step: Step, tp_size: int) -> None:
    """Attention and MLP of all ranks, each with its part of the weights and of the cache, add up to the whole's."""
    hidden, heads, kv_heads, width = 16, 2 * tp_size, tp_size, 8
    stored = {
        "q": normal(rng, (heads * width, hidden), FLOAT32, 0.3),
        "k": normal(rng, (kv_heads * width, hidden), FLOAT32, 0.3),
        "v": normal(rng, (kv_heads * width, hidden), FLOAT32, 0.3),
    }
    output = normal(rng, (hidden, heads * width), FLOAT32, 0.3)
    gate, up, down = (normal(rng, shape, FLOAT32, 0.3) for shape in ((24, hidden), (24, hidden), (hidden, 24)))
    shape = (step.num_blocks, step.block_size, kv_heads, width)
    caches = normal(rng, shape, FLOAT32), normal(rng, shape, FLOAT32)
    x = normal(rng, (step.rows, hidden), FLOAT32)
    context.set_context(**step.context)

    def run(rank: int, size: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        attention = qwen3.Qwen3Attention(hidden, heads, kv_heads, 64, width, tp_rank=rank, tp_size=size)
        for shard, weight in stored.items():
            attention.qkv_proj.weight_loader(attention.qkv_proj.weight, weight, shard)
        attention.o_proj.weight_loader(attention.o_proj.weight, output)
        own = tuple(np.split(cache, size, axis=2)[rank].copy() for cache in caches)
        attention.attn.k_cache, attention.attn.v_cache = own
        mlp = qwen3.Qwen3MLP(hidden, 24, "silu", tp_rank=rank, tp_size=size)
        mlp.gate_up_proj.weight_loader(mlp.gate_up_proj.weight, gate, 0)
        mlp.gate_up_proj.weight_loader(mlp.gate_up_proj.weight, up, 1)
        mlp.down_proj.weight_loader(mlp.down_proj.weight, down)
        return attention(step.positions, x), mlp(x), own

    whole, ranks = run(0, 1), [run(rank, tp_size) for rank in range(tp_size)]
    assert nmse(sum(rank[0] for rank in ranks), whole[0]) < 1e-9
    assert nmse(sum(rank[1] for rank in ranks), whole[1]) < 1e-9
    for i, cache in enumerate(whole[2]):
        assert nmse(np.concatenate([rank[2][i] for rank in ranks], axis=2), cache) < 1e-9


def small(**options: Any) -> SimpleNamespace:
    config = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "vocab_size": 16,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "model_type": "qwen3",
    }
    return SimpleNamespace(**(config | options))


def prefill(n: int, **fields: Any) -> None:
    offsets = np.array([0, n], np.int32)
    context.set_context(True, offsets, offsets, n, n, **fields)


def ready() -> Any:
    model = qwen3.Qwen3ForCausalLM(small())
    fill(model, np.random.default_rng(0), FLOAT32)
    return model


def test_the_tree_has_nano_vllms_names() -> None:
    model = qwen3.Qwen3ForCausalLM(small())
    names = [name for name, _ in model.named_parameters()]
    layer = [
        "self_attn.qkv_proj.weight",
        "self_attn.o_proj.weight",
        "self_attn.q_norm.weight",
        "self_attn.k_norm.weight",
    ]
    layer += ["mlp.gate_up_proj.weight", "mlp.down_proj.weight"]
    layer += ["input_layernorm.weight", "post_attention_layernorm.weight"]
    expected = ["model.embed_tokens.weight", *(f"model.layers.{i}.{name}" for i in range(2) for name in layer)]
    assert names == [*expected, "model.norm.weight"]
    assert model.get_parameter("lm_head.weight") is model.model.embed_tokens.weight
    assert model.get_parameter("model.layers.1.self_attn.qkv_proj.weight").shape == (16, 8)
    assert model.get_submodule("model.layers.1.mlp") is model.model.layers[1].mlp
    for name in ("model.layers.2.mlp", "model.layers.x", "lm_tail"):
        with pytest.raises(AttributeError, match=r"there is no module|has no module"):
            model.get_submodule(name)
    with pytest.raises(AttributeError, match="has no parameter 'bias'"):
        model.get_parameter("lm_head.bias")
    assert "lm_head.weight" in dict(qwen3.Qwen3ForCausalLM(small(tie_word_embeddings=False)).named_parameters())


def test_whatever_stands_in_a_place_is_used() -> None:
    model, ids, positions = ready(), np.arange(3), np.arange(3)
    prefill(3)
    before = model(ids, positions)
    mlp = model.model.layers[0].mlp
    other = RowParallelLinear(12, 8)
    other.weight.data = -mlp.down_proj.weight.data
    mlp.down_proj = other
    changed = model(ids, positions)
    assert nmse(changed, before) > 1e-6
    other.weight.data = -other.weight.data
    np.testing.assert_array_equal(model(ids, positions), before)


def test_refusals_of_configurations() -> None:
    with pytest.raises(ValueError, match="hidden_act must be \"silu\", got 'gelu'"):
        qwen3.Qwen3MLP(4, 4, "gelu")
    with pytest.raises(ValueError, match="3 is not divisible by 2"):
        qwen3.Qwen3Attention(8, 3, 1, tp_size=2)
    with pytest.raises(ValueError, match="device must be"):
        qwen3.Qwen3ForCausalLM(small(), device="abacus")
    with pytest.raises(ValueError, match="num_kv_heads must divide num_heads"):
        qwen3.Qwen3Attention(8, 0, 0)
    with pytest.raises(ValueError, match="num_kv_heads must divide num_heads"):
        qwen3.Qwen3DecoderLayer(small(num_attention_heads=3, num_key_value_heads=2))


def test_refusals_of_steps() -> None:
    model, ids, positions = ready(), np.arange(3), np.arange(3)
    with pytest.raises(ValueError, match="no context_lens"):
        model(ids, positions)  # no context was set, which means decode
    prefill(4)
    with pytest.raises(ValueError, match="cu_seqlens_q must rise from 0 to the 3 rows"):
        model(ids, positions)
    prefill(3, block_tables=np.zeros((1, 1), np.int32))
    with pytest.raises(ValueError, match="block_tables, but the modules have no k_cache"):
        model(ids, positions)
    prefill(3)
    with pytest.raises(ValueError, match="positions has 2 entries for 3 rows"):
        model(ids, positions[:2])
    with pytest.raises(ValueError, match=r"positions\[2\] is 32, the rotary table ends before 32"):
        model(ids, np.array([0, 1, 32]))
    with pytest.raises(ValueError, match="below the 16 tokens of the vocabulary, got 16 at index 2"):
        model(np.array([0, 1, 16]), positions)
    context.set_context(True, np.array([0, 3]), np.array([0, 5]))
    with pytest.raises(ValueError, match="tokens before its rows, and the context no block_tables"):
        model(ids, positions)
    context.set_context(True, np.array([0, 3]), np.array([0, 2]))
    with pytest.raises(ValueError, match="fewer tokens than rows"):
        model(ids, positions)


def test_refusals_of_caches() -> None:
    model, ids, positions = ready(), np.arange(3), np.arange(3)
    layers = [layer.self_attn.attn for layer in model.model.layers]
    prefill(3)
    layers[0].k_cache = layers[0].v_cache = np.zeros((2, 4, 1, 4), np.float32)
    with pytest.raises(ValueError, match="either all layers have a k_cache and a v_cache, or none"):
        model(ids, positions)
    layers[1].k_cache = layers[1].v_cache = np.zeros((3, 4, 1, 4), np.float32)
    with pytest.raises(ValueError, match="same number and size of blocks"):
        model(ids, positions)
    layers[1].k_cache, layers[1].v_cache = np.zeros((2, 2, 4, 1, 4), np.float32)
    with pytest.raises(ValueError, match="no slot_mapping"):
        model(ids, positions)
    prefill(3, slot_mapping=np.array([0, 1, 8]))
    with pytest.raises(ValueError, match=r"slot_mapping\[2\] is 8, the cache has 2 blocks of 4"):
        model(ids, positions)
    prefill(3, slot_mapping=np.array([0, 1, 2]), block_tables=np.array([[2]]))
    with pytest.raises(ValueError, match=r"block_tables\[0, 0\] is 2, the cache has 2 blocks"):
        model(ids, positions)


def test_refusals_of_parts() -> None:
    model, ids, positions = ready(), np.arange(3), np.arange(3)
    prefill(3)
    attention = model.model.layers[1].self_attn
    q_norm, attention.q_norm = attention.q_norm, None
    with pytest.raises(ValueError, match="q_norm and k_norm must both be there"):
        model(ids, positions)
    attention.q_norm = q_norm
    attention.o_proj = RowParallelLinear(7, 8)
    with pytest.raises(ValueError, match=r"o_proj must have a weight \[8, 8\]"):
        model(ids, positions)
    attention.o_proj = RowParallelLinear(8, 8)
    with pytest.raises(ValueError, match="number 0 was not loaded"):
        model(ids, positions)
    del model.model.layers[:]
    with pytest.raises(ValueError, match="the model has no layers"):
        model(ids, positions)
