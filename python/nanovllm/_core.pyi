"""The engine behind the package, in Rust."""

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, SupportsFloat, SupportsIndex, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Attention",
    "Engine",
    "FinishedSequence",
    "Linear",
    "ModelRunner",
    "Parameter",
    "RMSNorm",
    "RotaryEmbedding",
    "SiluAndMul",
    "Tokenizer",
    "VocabParallel",
    "__version__",
    "apply_rotary_emb",
    "check_sampling_params",
    "divide",
    "exponential_noise",
    "memory",
    "read_config",
    "sample",
    "store_kvcache",
]

__version__: str

def check_sampling_params(
    temperature: SupportsFloat, max_tokens: SupportsIndex, ignore_eos: bool, seed: SupportsIndex | None
) -> None:
    """Raises what `Engine.add_request` would for these options."""

def divide(numerator: SupportsIndex, denominator: SupportsIndex) -> int:
    """`numerator / denominator`, which must be exact."""

def read_config(path: str | PathLike[str]) -> str:
    """The model's config.json as JSON text, or its equivalent made from GGUF metadata. No weight is read."""

def memory(*, device: str) -> tuple[int, int, int]:
    """Memory of the device in bytes: all there is, what is taken, and what can still be had.

    Of the CPU it is what this process may use, which a control group may limit.
    """

def store_kvcache(key: Any, value: Any, k_cache: Any, v_cache: Any, slot_mapping: Any, *, device: str) -> None:
    """Stores rows of keys and values, `[n, num_kv_heads, head_dim]`, into the caller's paged caches.

    Caches are `[num_blocks, block_size, num_kv_heads, head_dim]`. Row `i` goes to slot `slot_mapping[i]`, which is
    `block * block_size + offset`, or nowhere if it is -1.
    """

def apply_rotary_emb(x: Any, cos: Any, sin: Any, *, device: str) -> Any:
    """Rotates each row of `x`, `[..., n]`, by cosines and sines that broadcast to `[..., n / 2]`."""

def sample(logits: Any, temperatures: Any, key: SupportsIndex, position: SupportsIndex, *, device: str) -> Any:
    """One token a row of `logits [n, vocab]`, at the row's temperature, 0 being greedy.

    Row `i` draws from the random stream (`key`, `position + i`).
    """

def exponential_noise(key: SupportsIndex, position: SupportsIndex, n: SupportsIndex) -> NDArray[np.float64]:
    """The exponential noise of the tokens `0..n` in the random stream (`key`, `position`): what `sample` draws by."""

@final
class FinishedSequence:
    """A finished sequence."""

    @property
    def seq_id(self) -> int: ...
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_cached_tokens(self) -> int: ...

@final
class Engine:
    """A loaded model with its scheduler and KV cache. Any thread may call any method."""

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        max_num_batched_tokens: int,
        max_num_seqs: int,
        max_model_len: int,
        gpu_memory_utilization: float,
        kvcache_block_size: int,
        num_kvcache_blocks: int,
        device: str,
        num_threads: int | None,
        isa: str | None,
        activation_bits: int,
        kv_cache_dtype: str,
        seed: int,
    ) -> Engine: ...
    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
    @property
    def description(self) -> str:
        """Architecture, device, instruction set and threads, for logs."""
    def add_request(
        self,
        token_ids: Iterable[SupportsIndex],
        temperature: SupportsFloat,
        max_tokens: SupportsIndex,
        ignore_eos: bool,
        seed: SupportsIndex | None,
    ) -> int:
        """Queues a prompt and returns its sequence id."""
    def step(self) -> tuple[list[FinishedSequence], int]:
        """Runs one step: what finished, and the prompt tokens computed or minus the tokens decoded."""
    def is_finished(self) -> bool:
        """Whether no sequence waits, runs or is finished but not returned."""
    def abort(self, seq_id: int) -> bool:
        """Drops a sequence and frees its cache; False when there is none of that id."""
    def stats(self) -> dict[str, int]:
        """Counters since the engine was made, and the state of queues and KV cache."""

@final
class ModelRunner:
    """A loaded model with its KV cache."""

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        max_model_len: int = 4096,
        kvcache_block_size: int = 256,
        num_kvcache_blocks: int = -1,
        device: str = "cpu",
        num_threads: int | None = None,
        isa: str | None = None,
        activation_bits: int = 16,
        kv_cache_dtype: str = "auto",
    ) -> ModelRunner: ...
    def logits(self, token_ids: Iterable[SupportsIndex], chunk_sizes: list[int] | None = None) -> NDArray[np.float32]:
        """The logits of every position, `[len(token_ids), vocab_size]`.

        The prompt runs through the paged cache in chunks of the given sizes (all at once without them; chunks of 1
        decode), on blocks scattered over the pool.
        """

@final
class RMSNorm:
    """A norm over the last dimension."""

    def __new__(cls, eps: float, *, device: str) -> RMSNorm: ...
    def forward(self, x: Any, weight: Parameter) -> Any:
        """The norm of each row of `x`, as wide as `weight`."""
    def add_forward(self, x: Any, residual: Any, weight: Parameter) -> tuple[Any, Any]:
        """`(norm(x + residual), x + residual)`, both of the type of `x`; neither argument is written to."""

@final
class RotaryEmbedding:
    """A table of cosines and sines on a device."""

    def __new__(
        cls, head_size: SupportsIndex, max_position: SupportsIndex, base: float, rope_scaling: str, *, device: str
    ) -> RotaryEmbedding: ...
    @property
    def cos_sin_cache(self) -> NDArray[np.float32]:
        """The table in float32, `[max_position, 1, head_size]`: cosines, then sines."""
    def forward(self, positions: Any, query: Any, key: Any) -> tuple[Any, Any]:
        """Query and key heads `[n, heads, head_size]`, rotated by their `positions [n]`."""

@final
class Attention:
    """Causal attention of grouped query heads."""

    def __new__(
        cls,
        num_heads: SupportsIndex,
        head_dim: SupportsIndex,
        scale: float,
        num_kv_heads: SupportsIndex,
        *,
        device: str,
    ) -> Attention: ...
    def varlen(self, q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any) -> Any:
        """Ragged sequences: rows `cu_seqlens_q[s]` of `q` and `cu_seqlens_k[s]` of `k` and `v` begin sequence `s`.

        `q` is `[n, num_heads, head_dim]`, `k` and `v` are `[m, num_kv_heads, head_dim]`. The last query of a sequence
        sees all its keys, each one before it one less.
        """
    def paged(self, q: Any, k_cache: Any, v_cache: Any, cu_seqlens_q: Any, context_lens: Any, block_tables: Any) -> Any:
        """As `varlen`, keys and values lying in paged caches `[num_blocks, block_size, num_kv_heads, head_dim]`.

        Sequence `s` has `context_lens[s]` tokens, in the blocks that row `s` of `block_tables` names in order.
        """

@final
class SiluAndMul:
    """`silu(gate) * up` of rows that hold gate and up side by side."""

    def __new__(cls, *, device: str) -> SiluAndMul: ...
    def forward(self, x: Any) -> Any:
        """`[..., 2 n] -> [..., n]`."""

@final
class Tokenizer:
    """A model's tokenizer."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`."""
    def decode(self, token_ids: Iterable[SupportsIndex], skip_special_tokens: bool) -> str:
        """Text of `token_ids`. An id no token has adds nothing."""
    def apply_chat_template(
        self,
        messages: str,
        add_generation_prompt: bool,
        tools: str | None,
        documents: str | None,
        template: str | None,
        extra: str,
    ) -> str:
        """The prompt text of `messages`. All but the flag and the template are JSON texts."""
    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it."""
    def id_to_token(self, token_id: int) -> str | None:
        """The token of an id as the vocabulary writes it."""
    def to_json(self) -> str:
        """The text of a tokenizer.json that describes this tokenizer."""
    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary, added ones included."""
    @property
    def eos_token_ids(self) -> list[int]:
        """Every id that ends a generation, the tokenizer's own first."""
    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that starts a sequence."""
    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token."""
    @property
    def chat_template(self) -> str | None:
        """The model's chat template."""

class Parameter:
    """One rank's parameter: a matrix `[outputs, inputs]` or a vector `[outputs]`, made of one or more stored tensors."""

    def __new__(
        cls,
        outputs: Sequence[SupportsIndex],
        inputs: SupportsIndex | None,
        *,
        tp_dim: int | None,
        tp_rank: SupportsIndex,
        tp_size: SupportsIndex,
    ) -> Parameter:
        """`outputs` are the sizes of the tensors it stacks and `inputs` their columns (None for vectors), both over all ranks.

        `tp_dim` 0 splits outputs, 1 inputs (of a matrix; a vector is then whole on every rank), None nothing.
        """
    def load(self, loaded: Any, shard: SupportsIndex) -> None:
        """Copies in this rank's part of the whole stored tensor `shard`."""
    @property
    def shape(self) -> tuple[int, ...]:
        """The rank's own shape."""
    @property
    def unloaded(self) -> list[int]:
        """Numbers of the tensors it is made of that were not loaded."""
    @property
    def data(self) -> NDArray[Any]:
        """A read-only copy of all elements, in the type they were loaded in; float32 where types differ.

        What was not loaded is zero. bfloat16 is ml_dtypes', and float32 where that is not installed.
        """
    @data.setter
    def data(self, data: Any) -> None: ...

@final
class Linear:
    """`y = x @ weight.T (+ bias)`."""

    def __new__(cls, *, device: str) -> Linear: ...
    def forward(self, x: Any, weight: Parameter, bias: Parameter | None) -> Any:
        """`[..., inputs] -> [..., outputs]`."""

@final
class VocabParallel:
    """The rows of a matrix that a rank has a part of, by token id; and the product with it."""

    def __new__(cls, *, device: str) -> VocabParallel: ...
    def embed(self, ids: Any, weight: Parameter, start: int, vocab_size: int) -> Any:
        """Rows of the tokens `ids`, `[n] -> [n, width]`, of a vocabulary of `vocab_size`.

        The rank's own start at token `start`, and those of other ranks are zero.
        """
    def logits(self, x: Any, weight: Parameter, cu_seqlens_q: Any | None) -> Any:
        """Logits of the rank's tokens, `[rows, width] -> [rows, tokens]`.

        Of the last row of each sequence where `cu_seqlens_q`, the offsets of their rows, is given.
        """
