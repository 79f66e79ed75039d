"""The engine's options: nano-vLLM's fields in their order with their defaults, then ours."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from nanovllm import _core
from nanovllm.exceptions import ModelNotFoundError

_MISSING = object()
_RENAMED = {"dtype": "torch_dtype", "torch_dtype": "dtype"}
"""The type of a checkpoint's weights, as transformers 4 and as transformers 5 call it: each answers for the other."""


class HfConfig:
    """A model's config.json with attribute access (for a GGUF file, the same keys built from its metadata).

    What the file leaves to transformers' defaults is filled in. Nested objects are dicts, as in transformers. Both
    `dtype` and `torch_dtype` give the type of the weights, as a text such as "bfloat16".
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._checkpoint: _core.Checkpoint | None = None

    @classmethod
    def read(cls, model: str) -> "HfConfig":
        """Reads the configuration of the model at a path, and keeps its files open for the engine made from it.

        Raises:
            ModelFormatError: It cannot be read.
            UnsupportedModelError: Its architecture is not supported.
        """
        checkpoint = _core.Checkpoint(model)
        config = cls(json.loads(checkpoint.config_json))
        config._checkpoint = checkpoint
        return config

    def take_checkpoint(self) -> _core.Checkpoint | None:
        """Hands over the open files this was read from, once; a copy, and a config made from values, has none."""
        checkpoint, self._checkpoint = self._checkpoint, None
        return checkpoint

    def __reduce__(self) -> tuple[Any, ...]:
        return HfConfig, (self._values,)  # a copy has no files

    def __getattr__(self, name: str) -> Any:
        # Looked up through __dict__: copy and pickle probe attributes before __init__ has run.
        values = self.__dict__.get("_values", {})
        value = values.get(name, _MISSING)
        if value is _MISSING:
            value = values.get(_RENAMED.get(name), _MISSING)
        if value is _MISSING:
            raise AttributeError(f"the model's config has no {name!r}")
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HfConfig) and self._values == other._values

    __hash__ = None  # type: ignore[assignment] # mutable, and equal by value

    def __repr__(self) -> str:
        return f"HfConfig({self._values!r})"

    def to_dict(self) -> dict[str, Any]:
        """A shallow copy of the values."""
        return dict(self._values)


@dataclass(slots=True)
class Config:
    """Options of an engine.

    Args:
        model: A directory with config.json and safetensors files, or a .gguf file.
        max_num_batched_tokens: The most prompt tokens that one prefill step computes.
        max_num_seqs: The most sequences that run at the same time.
        max_model_len: The most tokens of prompt and answer together; lowered to what the model allows.
        gpu_memory_utilization: Share that the KV cache may take, when `num_kvcache_blocks` is not given, of the memory
            that is free once the model is loaded (on the CPU, the machine's or its cgroup's); it never takes more than
            half of that, nor more than `max_num_seqs` sequences of `max_model_len` tokens fill. Of a mixture whose
            weights need more than this share of what is free before, the experts that do not fit stay in their file.
        tensor_parallel_size: Devices to split the model over; the CPU device is one.
        enforce_eager: Accepted for nano-vLLM's scripts. It turns off CUDA graphs, which the CPU device does not have.
        hf_config: The model's own configuration, read from `model` unless it is given.
        eos: The id that ends a sequence, filled in from the tokenizer. The engine stops at every id that the
            tokenizer, config.json or generation_config.json names.
        kvcache_block_size: Tokens in a block of the KV cache, a multiple of 256; where steps are mixed one of 16, and
            32 unless it is given. A prefix that was computed before is found in whole blocks.
        num_kvcache_blocks: Blocks in the KV cache; -1 sizes it by the memory there is. Filled in once it is allocated.
        device: Where the model runs: "cpu"; "candle", portable and slower, with 8-bit products of quantised weights;
            "candle-f32", the same with every weight widened to float32, to compare the others with.
        num_threads: Threads of the CPU device; None takes one for each core this process may use.
        isa: Instruction set of the CPU device ("scalar", "avx2", "avx-vnni", "avx512", "avx512-bf16"), one that this
            machine has; None takes the best.
        activation_bits: Bits of the activations that quantised weights are multiplied with on the CPU. 16 answers as
            the same weights in float32 would; 8, what llama.cpp takes, is faster in prefill and large batches.
        kv_cache_dtype: "auto" (float32 for float32 checkpoints, else bfloat16), "float32" or "bfloat16".
        seed: Seed of the draws of requests that have no seed of their own, 0 to 2**64 - 1.
        scheduling_policy: "default" (`LLM`'s) prefills what waits before it decodes, as nano-vLLM does; "nano-vllm"
            decides exactly as nano-vLLM; "mixed" (`AsyncLLM`'s) decodes in every step, prompts in chunks beside that,
            for callers who wait for every token. None is as whoever uses it has it.
        max_inter_token_latency: Where steps are mixed, the most seconds that a step may take because of prompts in it;
            None lets it take seven times as long as without them.

    Raises:
        ModelNotFoundError: `model` does not exist.
        ModelFormatError: The model's configuration cannot be read.
        UnsupportedModelError: Its architecture is not supported.
        ValueError: An option is outside its limits; the message names both.
    """

    model: str
    max_num_batched_tokens: int = 16384
    max_num_seqs: int = 512
    max_model_len: int = 4096
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    hf_config: HfConfig | None = None
    eos: int = -1
    kvcache_block_size: int = 256
    num_kvcache_blocks: int = -1
    device: str = "cpu"
    num_threads: int | None = None
    isa: str | None = None
    activation_bits: int = 16
    kv_cache_dtype: str = "auto"
    seed: int = 0
    scheduling_policy: str | None = None
    max_inter_token_latency: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, (str, os.PathLike)):
            raise TypeError(f"model must be a path, not {type(self.model).__name__}")
        self.model = os.fspath(self.model)
        _check_path(self.model)
        self._check_options()
        if self.hf_config is None:
            self.hf_config = HfConfig.read(self.model)
        self.max_model_len = min(self.max_model_len, self.hf_config.max_position_embeddings)

    def _check_options(self) -> None:
        for name in _INTEGERS:
            value = getattr(self, name)
            if isinstance(value, Integral) and not isinstance(value, bool):
                setattr(self, name, int(value))  # numpy's, too
        for name in ("max_num_batched_tokens", "max_num_seqs", "max_model_len"):
            _require(_is_int(getattr(self, name), 1), name, "an integer of at least 1", getattr(self, name))
        share = self.gpu_memory_utilization
        is_number = isinstance(share, Real) and not isinstance(share, bool)
        in_range = is_number and math.isfinite(share) and 0 < share <= 1
        _require(in_range, "gpu_memory_utilization", "above 0 and at most 1", share)
        self.gpu_memory_utilization = float(share)
        _require(
            _is_int(self.tensor_parallel_size, 1) and self.tensor_parallel_size == 1,
            "tensor_parallel_size",
            "1, as there is no device with shards yet",
            self.tensor_parallel_size,
        )
        _require(self.enforce_eager in (True, False), "enforce_eager", "True or False", self.enforce_eager)
        _require(_is_int(self.eos, -(2**63)), "eos", "a token id, or -1", self.eos)
        policies = (None, "nano-vllm", "default", "mixed")
        _require(
            self.scheduling_policy in policies,
            "scheduling_policy",
            f"one of {', '.join(map(repr, policies))}",
            self.scheduling_policy,
        )
        latency = self.max_inter_token_latency
        is_latency = isinstance(latency, Real) and not isinstance(latency, bool) and math.isfinite(latency)
        _require(
            latency is None or (is_latency and latency > 0),
            "max_inter_token_latency",
            "None or a number of seconds above 0",
            latency,
        )
        step = 16 if self.scheduling_policy == "mixed" else 256
        size = self.kvcache_block_size
        is_multiple = _is_int(size, 1) and size % step == 0
        _require(is_multiple, "kvcache_block_size", f"a positive multiple of {step}", size)
        blocks = self.num_kvcache_blocks
        _require(blocks == -1 or _is_int(blocks, 1), "num_kvcache_blocks", "-1 or at least 1", blocks)
        devices = _core.device_names()
        _require(self.device in devices, "device", f"one of {', '.join(map(repr, devices))}", self.device)
        threads = self.num_threads
        _require(threads is None or _is_int(threads, 1), "num_threads", "None or at least 1", threads)
        if self.isa is not None:
            here = [name for name, is_available in _core.instruction_sets().items() if is_available]
            limit = f"None or an instruction set of this machine ({', '.join(map(repr, here))})"
            _require(self.isa in here, "isa", limit, self.isa)
        bits = self.activation_bits
        _require(_is_int(bits, 8) and bits in (8, 16), "activation_bits", "8 or 16", bits)
        dtypes = ("auto", "float32", "bfloat16")
        _require(self.kv_cache_dtype in dtypes, "kv_cache_dtype", f"one of {dtypes}", self.kv_cache_dtype)
        _require(_is_int(self.seed, 0, 2**64 - 1), "seed", "an integer in 0..2**64 - 1", self.seed)


_INTEGERS = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_model_len",
    "tensor_parallel_size",
    "kvcache_block_size",
    "num_kvcache_blocks",
    "num_threads",
    "eos",
    "activation_bits",
    "seed",
)


def _check_path(model: str) -> None:
    """Raises for a path where nothing is; what is there is for the engine to judge."""
    if not model:
        raise ModelNotFoundError("model is empty: it must be a directory or a .gguf file")
    if not Path(model).exists():
        raise ModelNotFoundError(f"there is no model at {model}")


def _is_int(value: object, low: int, high: int = 2**63 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _require(holds: bool, name: str, limit: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {limit}, got {value!r}")
