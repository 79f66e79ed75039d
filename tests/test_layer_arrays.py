"""Arrays in and out of the layers: types, strides, numpy and torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nanovllm.layers.activation import SiluAndMul
from nanovllm.layers.attention import Attention, store_kvcache
from nanovllm.layers.layernorm import RMSNorm
from nanovllm.layers.rotary_embedding import RotaryEmbedding, apply_rotary_emb
from nanovllm.layers.sampler import Sampler
from nanovllm.utils import context

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def attend(q: Any) -> Any:
    context.set_context(True, np.array([0, 2, 6]), np.array([0, 2, 6]), 4, 4)
    try:
        return Attention(4, 8, 0.25, 4)(q, q, q)
    finally:
        context.reset_context()


COS_SIN = [f(np.linspace(0, 6, 24).reshape(6, 1, 4)).astype(np.float32) for f in (np.cos, np.sin)]
LAYERS: dict[str, Callable[[Any], Any]] = {  # each of one array [6, 4, 8]
    "silu_and_mul": SiluAndMul(),
    "rms_norm": RMSNorm(8),
    "add_rms_norm": lambda x: RMSNorm(8)(x, x)[0],
    "residual": lambda x: RMSNorm(8)(x, x)[1],
    "rotary_embedding": lambda x: RotaryEmbedding(8, 8, 9, 1e4)(np.arange(6), x, x)[1],
    "apply_rotary_emb": lambda x: apply_rotary_emb(x, *COS_SIN),
    "attention": attend,
}
layers = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


@layers
@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)
def test_results_are_rounded_once(layer: Callable[[Any], Any], dtype: np.dtype) -> None:
    x = normal(6, 4, 8).astype(dtype)
    got, exact = layer(x), layer(x.astype(np.float32))
    assert (got.dtype, exact.dtype) == (dtype, np.float32)
    if layer is attend and dtype == BFLOAT16:  # over a cache of bfloat16, in whose arithmetic devices attend
        np.testing.assert_allclose(got.astype(np.float32), exact, rtol=2**-6, atol=2**-7)
    else:
        np.testing.assert_array_equal(got, exact.astype(dtype))


@layers
def test_any_strides(layer: Callable[[Any], Any]) -> None:
    x = normal(6, 4, 8)
    expected = layer(x)
    wide = np.zeros((12, 4, 16), np.float32)
    wide[::2, :, ::-2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for other in (np.asfortranarray(x), wide[::2, :, ::-2], frozen):
        np.testing.assert_array_equal(layer(other), expected)


def test_no_rows() -> None:
    none = np.zeros((0, 4, 8), np.float32)
    assert SiluAndMul()(none).shape == (0, 4, 4)
    assert RMSNorm(8)(none).shape == (0, 4, 8)
    assert apply_rotary_emb(none, np.ones(4, np.float32), np.ones(4, np.float32)).shape == (0, 4, 8)
    assert RotaryEmbedding(8, 8, 9, 1e4)(np.array([], np.int64), none, none)[0].shape == (0, 4, 8)
    assert Sampler(0)(np.zeros((0, 5), np.float32), np.zeros(0, np.float32)).shape == (0,)
    cache = np.zeros((1, 2, 4, 8), np.float32)
    store_kvcache(none, none, cache, cache, np.array([], np.int32))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "x must be a numpy array or a torch tensor, not list"),
        (np.zeros((2, 2)), "x must be float32, float16 or bfloat16, got float64"),
        (np.zeros((2, 2), ">f4"), "x must be float32, float16 or bfloat16, got >f4"),
        (np.zeros((2, 2), np.int32), "x must be float32, float16 or bfloat16, got int32"),
    ],
)
def test_other_types_are_refused(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        SiluAndMul()(value)


@pytest.mark.parametrize("dimensions", [0, 5])
def test_other_numbers_of_dimensions_are_refused(dimensions: int) -> None:
    with pytest.raises(ValueError, match=f"x must have 1 to 4 dimensions, got {dimensions}"):
        SiluAndMul()(np.zeros((2,) * dimensions, np.float32))


def test_integers_of_any_type() -> None:
    rotary, x = RotaryEmbedding(8, 8, 9, 1e4), normal(3, 2, 8)
    expected = rotary(np.array([8, 0, 5]), x, x)[0]
    for positions in ([8, 0, 5], *(np.array([8, 0, 5], t) for t in (np.int8, np.uint16, np.int32, np.uint32))):
        np.testing.assert_array_equal(rotary(positions, x, x)[0], expected)
    with pytest.raises(TypeError, match="positions must be integers that fit int64, got uint64"):
        rotary(np.array([8, 0, 5], np.uint64), x, x)


class Tensor:
    """As much of torch's tensor as the layers ask for, over a numpy array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.dtype, self.shape, self.ndim = values, f"torch.{values.dtype}", values.shape, values.ndim

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def float(self) -> Tensor:
        return Tensor(self.values.astype(np.float32))

    def numpy(self) -> np.ndarray:
        if self.values.dtype == BFLOAT16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values

    def to(self, other: Tensor) -> Tensor:
        return Tensor(self.values.astype(other.values.dtype))

    def __len__(self) -> int:
        return len(self.values)

    def __setitem__(self, indices: tuple[Tensor, Tensor], rows: Tensor) -> None:
        if rows.dtype != self.dtype:
            raise RuntimeError("Index put requires the source and destination dtypes match")
        self.values[tuple(index.values for index in indices)] = rows.values


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = ModuleType("torch")
    torch.from_numpy = Tensor
    monkeypatch.setitem(sys.modules, "torch", torch)


@layers
@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16], ids=str)
@pytest.mark.usefixtures("fake_torch")
def test_tensors_answer_tensors(layer: Callable[[Any], Any], dtype: np.dtype) -> None:
    x = normal(6, 4, 8).astype(dtype)
    got = layer(Tensor(x))
    assert isinstance(got, Tensor)
    np.testing.assert_array_equal(got.values, layer(x), strict=True)


@pytest.mark.usefixtures("fake_torch")
def test_tensors_as_caches_and_integers() -> None:
    key, caches = normal(3, 2, 4), [np.zeros((2, 5, 2, 4), BFLOAT16) for _ in range(2)]
    store_kvcache(Tensor(key), Tensor(key), *map(Tensor, caches), Tensor(np.array([7, -1, 2])))
    expected = np.zeros((10, 2, 4), BFLOAT16)
    expected[[7, 2]] = key[[0, 2]].astype(BFLOAT16)
    for cache in caches:
        np.testing.assert_array_equal(cache.reshape(10, 2, 4), expected)
    tokens = Sampler(0)(Tensor(normal(3, 9)), Tensor(np.ones(3, np.float32)))
    np.testing.assert_array_equal(tokens.values, Sampler(0)(normal(3, 9), np.ones(3, np.float32)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_real_tensors(dtype: str) -> None:
    torch = pytest.importorskip("torch")

    def tensor(values: np.ndarray) -> Any:
        return torch.from_numpy(values).to(getattr(torch, dtype)).requires_grad_()

    def widened(x: Any) -> np.ndarray:
        return x.detach().float().numpy()

    x = tensor(normal(6, 4, 8))
    for layer in LAYERS.values():
        got = layer(x)
        assert got.dtype == x.dtype
        same = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        np.testing.assert_array_equal(widened(got), layer(widened(x).astype(same)).astype(np.float32))
    key, caches = tensor(normal(3, 2, 4)), [torch.zeros(2, 5, 2, 4, dtype=x.dtype) for _ in range(2)]
    store_kvcache(key, key, *caches, torch.tensor([7, -1, 2], dtype=torch.int32))
    expected = torch.zeros(10, 2, 4, dtype=x.dtype)
    expected[[7, 2]] = key.detach()[[0, 2]]
    assert all(torch.equal(cache.view(10, 2, 4), expected) for cache in caches)
    layer = Attention(4, 4, 0.5, 2)
    layer.k_cache, layer.v_cache = caches
    context.set_context(
        False,
        slot_mapping=torch.tensor([3, 8]),
        context_lens=torch.tensor([4, 4]),
        block_tables=torch.tensor([[0], [1]]),
    )
    out = layer(tensor(normal(2, 4, 4)), tensor(normal(2, 2, 4)), tensor(normal(2, 2, 4)))
    context.reset_context()
    assert (out.shape, out.dtype) == ((2, 1, 4, 4), x.dtype)
    assert Sampler(0)(tensor(normal(3, 9)), torch.ones(3)).dtype == torch.int64


def test_caches_of_two_types_lose_nothing() -> None:
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    key = value = np.full((1, 1, 2), 1 + 2**-12, np.float32)
    k_cache, v_cache = np.zeros((1, 2, 1, 2), bfloat16), np.zeros((1, 2, 1, 2), np.float32)
    store_kvcache(key, value, k_cache, v_cache, np.array([1], np.int32))
    assert np.array_equal(v_cache[0, 1], value[0])
    assert np.array_equal(k_cache[0, 1], key[0].astype(bfloat16))


def test_an_absurd_head_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        RotaryEmbedding(2**40, 2**40, 1, 1e4)
