"""`layers/linear.py`: what each rank keeps of what is loaded, in whatever order, and what it computes from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm.layers import linear
from parity import counts
from parity.arrays import BFLOAT16, DEVICES, FLOAT32, Rng, check, dtypes, energy, nmse, normal, rngs
from parity.fixture import Reference

SIZES = st.sampled_from([1, 2, 4, 8])


@dataclass
class Drawn:
    """A layer as its class takes it, and what is stored of it: `stored[shard] = (outputs, inputs)` over all ranks."""

    kind: str
    sizes: tuple[Any, ...]
    stored: dict[Any, tuple[int, int]]
    tp_size: int


@st.composite
def layers(draw: st.DrawFn, kinds: tuple[str, ...] = ()) -> Drawn:
    tp, n = draw(SIZES), st.integers(1, 12)
    kind = draw(
        st.sampled_from(kinds or ("Replicated", "ColumnParallel", "MergedColumnParallel", "QKVParallel", "RowParallel"))
    )
    inputs, outputs = draw(st.integers(1, 70)), draw(n)
    if kind == "MergedColumnParallel":
        parts = [tp * part for part in draw(st.lists(n, min_size=1, max_size=4))]
        return Drawn(kind, (inputs, parts), {i: (part, inputs) for i, part in enumerate(parts)}, tp)
    if kind == "QKVParallel":
        head, heads, kv = draw(n), tp * draw(st.integers(1, 4)), tp * draw(st.integers(1, 2))
        given_kv = None if kv == heads and draw(st.booleans()) else kv
        shapes = {"q": (heads * head, inputs), "k": (kv * head, inputs), "v": (kv * head, inputs)}
        return Drawn(kind, (inputs, head, heads, given_kv), shapes, tp)
    if kind == "RowParallel":
        inputs *= tp
    elif kind == "ColumnParallel":
        outputs *= tp
    return Drawn(kind, (inputs, outputs), {None: (outputs, inputs)}, tp)


def make(drawn: Drawn, bias: bool, rank: int, device: str = "cpu") -> Any:
    kind = getattr(linear, f"{drawn.kind}Linear")
    return kind(*drawn.sizes, bias=bias, tp_rank=rank, tp_size=drawn.tp_size, device=device)


def draw_stored(rng: Rng, drawn: Drawn, bias: bool, dtype: np.dtype) -> dict[tuple[str, Any], np.ndarray]:
    """The stored tensors by parameter and shard."""
    stored = {("weight", shard): normal(rng, shape, dtype, 0.1) for shard, shape in drawn.stored.items()}
    if bias:
        stored |= {("bias", shard): normal(rng, shape[:1], dtype) for shard, shape in drawn.stored.items()}
    return stored


def load(layer: Any, name: str, stored: np.ndarray, shard: Any) -> None:
    parameter = getattr(layer, name)
    parameter.weight_loader(parameter, stored, *([] if shard is None else [shard]))


@pytest.mark.parametrize("device", DEVICES)
@counts.examples()
@given(data=st.data(), rng=rngs, drawn=layers(), bias=st.booleans())
def test_loading_and_forward(
    reference: Reference, device: str, data: st.DataObject, rng: Rng, drawn: Drawn, bias: bool
) -> None:
    rank, dtype = data.draw(st.integers(0, drawn.tp_size - 1)), data.draw(dtypes(reference))
    ours = make(drawn, bias, rank, device)
    theirs = reference.linear.Linear(drawn.kind, drawn.sizes, bias, rank, drawn.tp_size)
    stored = draw_stored(rng, drawn, bias, dtype)
    for again in range(data.draw(st.integers(1, 2))):
        # The second time, one tensor is replaced after the layer has run.
        order = data.draw(st.permutations(sorted(stored, key=str)))
        for name, shard in order if again == 0 else order[:1]:
            value = stored[name, shard] if again == 0 else -stored[name, shard]
            load(ours, name, value, shard)
            theirs.load(name, value, shard)
        for name in ("weight", "bias"):
            expected, parameter = theirs.parameter(name), getattr(ours, name)
            if expected is None:
                assert parameter is None
            else:
                assert parameter.shape == expected.shape
                np.testing.assert_array_equal(parameter.data.astype(expected.dtype), expected)
        shape = (*data.draw(st.lists(st.integers(1, 5), max_size=2)), ours.weight.shape[1])
        x = normal(rng, shape, dtype)
        check(reference, "linear", ours(x), theirs.forward(x), energy(x, theirs.parameter("weight")))


@counts.examples(0.5)
@given(
    rng=rngs, drawn=layers(("ColumnParallel", "MergedColumnParallel", "QKVParallel", "RowParallel")), bias=st.booleans()
)
def test_ranks_make_up_the_whole_layer(rng: Rng, drawn: Drawn, bias: bool) -> None:
    stored = draw_stored(rng, drawn, bias, FLOAT32)
    ranks = [make(drawn, bias, rank) for rank in range(drawn.tp_size)]
    for layer in ranks:
        for (name, shard), value in stored.items():
            load(layer, name, value, shard)
    inputs = next(iter(drawn.stored.values()))[1]
    x = normal(rng, (3, inputs), FLOAT32)
    weights = np.concatenate([stored["weight", shard] for shard in drawn.stored]).astype(np.float64)
    whole = x.astype(np.float64) @ weights.T
    if bias:
        whole += np.concatenate([stored["bias", shard] for shard in drawn.stored])
    if drawn.kind == "RowParallel":
        out = sum(layer(part) for layer, part in zip(ranks, np.split(x, drawn.tp_size, axis=1), strict=True))
    else:
        # Each rank gives its part of every shard, so the parts are joined shard by shard.
        cuts = np.cumsum([shape[0] // drawn.tp_size for shape in drawn.stored.values()])[:-1]
        parts = [np.split(layer(x), cuts, axis=1) for layer in ranks]
        out = np.concatenate([part for shard in zip(*parts, strict=True) for part in shard], axis=1)
    assert nmse(out, whole) < 1e-9


def test_divide() -> None:
    assert linear.divide(12, 4) == 3
    with pytest.raises(ValueError, match="7 is not divisible by 2"):
        linear.divide(7, 2)
    with pytest.raises(ValueError, match="7 is not divisible by 0"):
        linear.divide(7, 0)


def test_a_parameter_cannot_be_changed_behind_the_layers_back() -> None:
    layer = linear.ReplicatedLinear(2, 2)
    layer.weight.data = np.eye(2, dtype=np.float32)
    with pytest.raises(ValueError, match="read-only"):
        layer.weight.data[0, 0] = 5
    layer.weight.data = layer.weight.data * 2
    np.testing.assert_array_equal(layer(np.ones(2, np.float32)), [2, 2])
    np.testing.assert_array_equal(np.asarray(layer.weight), 2 * np.eye(2))


def test_shards_of_different_types() -> None:
    layer = linear.MergedColumnParallelLinear(1, [1, 1])
    layer.weight_loader(layer.weight, np.full((1, 1), 1.5, BFLOAT16), 0)
    assert layer.weight.data.dtype == BFLOAT16
    layer.weight_loader(layer.weight, np.full((1, 1), 0.1, np.float32), 1)
    assert layer.weight.data.dtype == np.float32
    np.testing.assert_array_equal(layer.weight.data, np.array([[1.5], [0.1]], np.float32))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: linear.ColumnParallelLinear(4, 6, tp_size=4), "6 is not divisible by 4"),
        (lambda: linear.RowParallelLinear(6, 4, tp_size=4), "6 is not divisible by 4"),
        (lambda: linear.MergedColumnParallelLinear(4, [3, 5], tp_size=2), "3 is not divisible by 2"),
        (lambda: linear.QKVParallelLinear(4, 2, 8, 2, tp_size=4), "2 is not divisible by 4"),
        (
            lambda: linear.ReplicatedLinear(4, 4, tp_rank=2, tp_size=2),
            "tp_rank must be below tp_size.*tp_rank 2, tp_size 2",
        ),
        (lambda: linear.ReplicatedLinear(4, 4, tp_size=0), "tp_rank must be below tp_size"),
        (lambda: linear.ReplicatedLinear(-1, 4), "input_size is -1"),
        (lambda: linear.ReplicatedLinear(2**40, 2**40), "overflow"),
        (lambda: linear.ReplicatedLinear(4, 4, device="abacus"), "device must be"),
    ],
)
def test_layers_that_cannot_be(make: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make()


def test_refusals_of_loaders() -> None:
    weight = np.zeros((4, 3), np.float32)
    column = linear.ColumnParallelLinear(3, 4, tp_size=2)
    with pytest.raises(ValueError, match=r"expected a tensor of shape \[4, 3\], got \[2, 3\]"):
        column.weight_loader(column.weight, weight[:2])
    with pytest.raises(TypeError, match="float64"):
        column.weight_loader(column.weight, weight.astype(np.float64))
    with pytest.raises(ValueError, match=r"expected a tensor of shape \[2, 3\], got \[4, 3\]"):
        column.weight.data = weight
    merged = linear.MergedColumnParallelLinear(3, [4, 4])
    for shard, error in (
        (2, "shard 2 of a parameter that is made of 2"),
        (-1, "loaded_shard_id is -1"),
        (None, "is needed"),
    ):
        with pytest.raises(ValueError, match=error):
            merged.weight_loader(merged.weight, weight, shard)
    qkv = linear.QKVParallelLinear(3, 4, 1)
    for shard in ("o", 0, None):
        with pytest.raises(ValueError, match='must be "q", "k" or "v"'):
            qkv.weight_loader(qkv.weight, weight, shard)


def test_refusals_of_forward() -> None:
    qkv = linear.QKVParallelLinear(3, 4, 1)
    qkv.weight_loader(qkv.weight, np.zeros((4, 3), np.float32), "q")
    assert qkv.weight.unloaded == [1, 2]
    with pytest.raises(ValueError, match="made of 3 tensors, and number 1 was not loaded"):
        qkv(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="last dimension of x must be 3, as the weight's, got 4"):
        qkv(np.zeros((2, 4), np.float32))
    layer = linear.ReplicatedLinear(2, 2, bias=True)
    layer.weight.data = np.eye(2, dtype=np.float32)
    layer.bias = linear.ReplicatedLinear(2, 3, bias=True).bias
    with pytest.raises(ValueError, match=r"no bias or one \[2\]"):
        layer(np.zeros(2, np.float32))
    with pytest.raises(NotImplementedError, match="LinearBase has no forward"):
        linear.LinearBase(2, 2)(np.zeros(2, np.float32))
