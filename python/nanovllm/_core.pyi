"""The engine behind the package, in Rust."""

from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Sequence as AbcSequence
from os import PathLike
from typing import Any, SupportsIndex, final, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

import nanovllm.engine.scheduler
import nanovllm.engine.sequence

__all__ = [
    "Attention",
    "Block",
    "BlockManager",
    "Call",
    "Checkpoint",
    "Engine",
    "FinishedSequence",
    "GgufFile",
    "Hub",
    "Linear",
    "ModelRunner",
    "Parameter",
    "Qwen3",
    "RMSNorm",
    "RotaryEmbedding",
    "SafeTensors",
    "Scheduler",
    "Sequence",
    "SiluAndMul",
    "TensorInfo",
    "Tokenizer",
    "VocabParallel",
    "__version__",
    "apply_rotary_emb",
    "architectures",
    "check_sampling_params",
    "dequantize",
    "device_names",
    "divide",
    "exponential_noise",
    "ggml_types",
    "graph_batch_size",
    "graph_batch_sizes",
    "instruction_sets",
    "memory",
    "prepare_block_tables",
    "prepare_decode",
    "prepare_prefill",
    "prepare_sample",
    "quantize",
    "run_command",
    "sample",
    "sampling_defaults",
    "store_kvcache",
]

__version__: str

_State = tuple[int, int, int, int, list[int], list[int] | int]

def apply_rotary_emb(x: Any, cos: Any, sin: Any, *, device: str) -> Any:
    """Rotates each row of `x`, `[..., n]`, by cosines and sines that broadcast to `[..., n / 2]`."""

def architectures() -> dict[str, str]:
    """The architectures there is code for: what config.json calls each, and what GGUF does."""

def check_sampling_params(params: nanovllm.engine.sequence.SamplingOptions) -> None:
    """Raises what `Engine.add_request` would for these options."""

def dequantize(dtype: str, data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> NDArray[np.float32]:
    """The float32 values, one-dimensional, of whole blocks of a type.

    Raises:
        ValueError: An unknown type, or bytes that are no whole blocks.
        TypeError: `data` is not bytes-like and no array of uint8.
    """

def device_names() -> list[str]:
    """The devices of this build: what `device` may be."""

def divide(numerator: SupportsIndex, denominator: SupportsIndex) -> int:
    """`numerator / denominator`, which must be exact."""

def exponential_noise(key: SupportsIndex, position: SupportsIndex, n: SupportsIndex) -> NDArray[np.float64]:
    """The exponential noise of the tokens `0..n` in the random stream (`key`, `position`): what `sample` draws by."""

def ggml_types() -> dict[str, tuple[int, int, int, bool]]:
    """Tensor types by ggml's name: its number, elements a block, bytes a block, and whether `quantize` writes it."""

def instruction_sets() -> dict[str, bool]:
    """The instruction sets that the CPU device has kernels for, the best last, and whether this machine has each."""

def memory(*, device: str) -> tuple[int, int, int]:
    """Memory of the device in bytes: all there is, what is taken, and what can still be had.

    Of the CPU it is what this process may use, which a control group may limit.
    """

def quantize(dtype: str, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bytes of whole blocks of a type that hold `values`.

    Raises:
        ValueError: An unknown type or one without a quantiser, elements that are no whole blocks, or a value no block
            can hold.
        TypeError: `values` is no array of float32.
    """

def prepare_prefill(
    seqs: Iterable[Sequence],
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.int32],
    int,
    int,
    NDArray[np.int32],
    NDArray[np.int32] | None,
]:
    """A prefill step of these sequences.

    `(input_ids, positions, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, slot_mapping, block_tables)`, block
    tables only where some keys are in the cache already.
    """

def prepare_decode(
    seqs: Iterable[Sequence],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """`(input_ids, positions, slot_mapping, context_lens, block_tables)` of a decode step of these sequences."""

def prepare_block_tables(seqs: Iterable[Sequence]) -> NDArray[np.int32]:
    """The block tables of these sequences, padded with -1."""

def prepare_sample(seqs: Iterable[Sequence]) -> NDArray[np.float32]:
    """The temperatures of these sequences."""

def graph_batch_sizes(max_num_seqs: int) -> list[int]:
    """The batch sizes nano-vLLM captures graphs for, for steps of at most `max_num_seqs` sequences."""

def graph_batch_size(sizes: list[int], num_seqs: int) -> int | None:
    """The smallest of the ascending `sizes` that holds a step of `num_seqs` sequences; None if there is none."""

def run_command(args: list[str], resolve: Callable[[str], str]) -> int:
    """Runs the command `nanovllm` with `args`, the program's name first, and gives its exit code.

    Args:
        args: The command line.
        resolve: From what the user calls a model to its path; the command reports an `Exception` that it raises.
    """

def sample(logits: Any, temperatures: Any, key: SupportsIndex, position: SupportsIndex, *, device: str) -> Any:
    """One token a row of `logits [n, vocab]`, at the row's temperature, 0 being greedy.

    Row `i` draws from the random stream (`key`, `position + i`).
    """

def sampling_defaults() -> dict[str, Any]:
    """Every option of a request by name with its default."""

def store_kvcache(key: Any, value: Any, k_cache: Any, v_cache: Any, slot_mapping: Any, *, device: str) -> None:
    """Stores rows of keys and values, `[n, num_kv_heads, head_dim]`, into the caller's paged caches.

    Caches are `[num_blocks, block_size, num_kv_heads, head_dim]`. Row `i` goes to slot `slot_mapping[i]`, which is
    `block * block_size + offset`, or nowhere if it is -1.
    """

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
class Block:
    """A block of the KV cache. One of a pool is a view, whose attributes are what the pool says now."""

    def __new__(cls, block_id: SupportsIndex) -> Block: ...
    @property
    def block_id(self) -> int: ...
    @property
    def ref_count(self) -> int:
        """Block tables that hold it; 0 is free."""
    @property
    def hash(self) -> int:
        """Chained hash of its contents once it is full, else -1."""
    @property
    def token_ids(self) -> list[int]:
        """The tokens the hash was computed from. A copy."""
    def update(self, hash: SupportsIndex, token_ids: Iterable[SupportsIndex]) -> None:  # noqa: A002 - nano-vLLM's name
        """Sets hash and tokens of a block made by hand."""
    def reset(self) -> None:
        """Makes a block made by hand a fresh one, used once."""

@disjoint_base
class BlockManager:
    """Allocates blocks to sequences, sharing those whose prefix is already computed.

    Sequences in a scheduler keep theirs: `allocate`, `deallocate`, `may_append` and `hash_blocks` are for sequences
    that the caller looks after. Attributes are copies, and a block is a view. A call that the sequence or the pool is
    not in the state for raises `PreconditionError`, which is both a `ValueError` and nano-vLLM's `AssertionError`.
    """

    def __new__(cls, num_blocks: SupportsIndex, block_size: SupportsIndex) -> BlockManager: ...
    def __init__(self, num_blocks: SupportsIndex, block_size: SupportsIndex) -> None:
        """For subclasses to call: the pool is made by `__new__`."""
    @classmethod
    def compute_hash(cls, token_ids: Iterable[SupportsIndex], prefix: int = -1) -> int:
        """xxh64 of the prefix's hash, unless that is -1, and the token ids."""
    def can_allocate(self, seq: Sequence) -> int:
        """How many leading blocks the prefix cache has, or -1 if the pool cannot take the sequence now."""
    def allocate(self, seq: Sequence, num_cached_blocks: SupportsIndex) -> None:
        """Gives the sequence its blocks, the first `num_cached_blocks` from the prefix cache."""
    def deallocate(self, seq: Sequence) -> None:
        """Takes the sequence's blocks back, the last one first."""
    def can_append(self, seq: Sequence) -> bool:
        """Whether the pool has the block that the sequence's newest token may need."""
    def may_append(self, seq: Sequence) -> None:
        """Gives the sequence another block if its newest token opens one."""
    def hash_blocks(self, seq: Sequence) -> None:
        """Enters the blocks that the scheduled tokens fill into the prefix cache."""
    @property
    def block_size(self) -> int: ...
    @property
    def blocks(self) -> list[Block]:
        """Every block, by id."""
    @property
    def hash_to_block_id(self) -> dict[int, int]:
        """The prefix cache: hash to block id. A copy."""
    @property
    def free_block_ids(self) -> deque[int]:
        """Ids of the free blocks, the next to be handed out first. A copy."""
    @property
    def used_block_ids(self) -> set[int]:
        """Ids of the blocks in use. A copy."""

@final
class Call:
    """Requests that one caller waits for.

    What has not finished when the waiting ends is dropped, all at once, whatever ends it, and so is everything when the
    object goes.
    """

    @property
    def pending(self) -> int:
        """Requests that have not finished."""
    def results(
        self,
        report: Callable[[list[FinishedSequence], int, int, float | None, float | None], object] | None = None,
    ) -> list[FinishedSequence]:
        """Waits for all requests, taking steps unless another caller does, and returns them as they finished.

        What has not finished when an exception ends this, that of a signal handler or of `report`, is dropped before
        Python sees it: no frame that a traceback keeps has hold of the requests.

        `report` is called about ten times a second, and also within a step: with the sequences that have finished since
        its last call, the prompt tokens and new tokens that the engine has computed since the requests were taken (for
        other callers, too), and the tokens a second of the last prefill and decode step, None where there was none.
        """

    def news(self) -> list[Any]:
        """Waits for news of its requests, for a tenth of a second at most, taking steps unless another caller does.

        A list of `(seq_id, token_ids, logprobs, text)` of new tokens and of `FinishedSequence`s with the rest of the
        text. Of requests that are not watched there is no news before they finish.
        """
    def close(self) -> None:
        """Drops what has not finished."""

@final
class Checkpoint:
    """A model's files, opened and not loaded yet."""

    def __new__(cls, path: str | PathLike[str]) -> Checkpoint: ...
    @property
    def config_json(self) -> str:
        """The model's config.json as JSON text, or its equivalent made from GGUF metadata. No weight is read."""

@final
class Engine:
    """A loaded model with its scheduler and KV cache. Any thread may call any method."""

    def __new__(cls, config: Any, checkpoint: Checkpoint | None = None) -> Engine: ...
    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
    @property
    def description(self) -> str:
        """Architecture, device, instruction set and threads, for logs."""
    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of the KV cache."""
    @property
    def model_runner(self) -> ModelRunner:
        """The model runner, for steps by hand."""
    @property
    def notes(self) -> list[str]:
        """What a user should know of how the weights were loaded, one line each."""
    def submit(
        self,
        requests: Iterable[
            tuple[
                AbcSequence[SupportsIndex],
                Iterable[SupportsIndex],
                nanovllm.engine.sequence.SamplingOptions,
                SupportsIndex,
            ]
        ],
        skip_special_tokens: bool,
        is_watched: bool = False,
    ) -> Call:
        """Queues prompts, each `(seq_ids, token_ids, sampling_params, priority)` with an id for each answer.

        No queued sequence has these ids. All are taken or none. The lower the priority, the sooner it is computed.
        Their answers are the call's, and what is left of them is dropped with it. The refusal of one of several says
        which it is, as `prompts[3]`. Special tokens are left out of their text if `skip_special_tokens` is true, unless
        a request says otherwise.
        Every token of requests that are watched is news.
        """
    def embed(
        self,
        requests: Iterable[tuple[SupportsIndex, Iterable[SupportsIndex], SupportsIndex]],
        pooling: str,
        normalize: bool,
    ) -> Call:
        """Queues prompts to be embedded, each `(seq_id, token_ids, priority)`, as `submit` does.

        An embedding is the hidden state of the last token, or the mean of all tokens' (`pooling` is `last` or `mean`),
        and is scaled to a length of 1 if `normalize` is true.
        """
    def hub(self) -> Hub:
        """A hub for the requests of asynchronous callers."""
    def drive(self) -> None:
        """Drives the engine on this thread until `end` is called; callers then only wait."""
    def end(self) -> None:
        """Has `drive` return."""
    def add_request(
        self,
        seq_id: SupportsIndex,
        token_ids: Iterable[SupportsIndex],
        sampling_params: nanovllm.engine.sequence.SamplingOptions,
    ) -> None:
        """Queues a prompt under an id that no queued sequence has; `step` hands out its answer."""
    def step(self, finished: dict[int, FinishedSequence]) -> int:
        """Puts the sequences that have finished and that no call waits for into `finished`, by id.

        Where there are none, after one step. They are there before signal handlers can run again. Returns the number of
        prompt tokens computed, or minus the number of tokens decoded. What a signal handler raises within the step ends
        it and takes it back.
        """
    def is_finished(self) -> bool:
        """Whether no sequence waits, runs, or is finished without having been handed out to whoever added it."""
    def abort(self, seq_id: int) -> bool:
        """Drops a sequence and frees its cache; False when there is none of that id."""
    def close(self) -> None:
        """Frees the model and its cache; every later call is refused. Queued sequences go back to their handles."""
    def metrics(self) -> dict[str, Any]:
        """What the engine has done and how fast, as of its last step: this waits for nothing.

        `stats` with `num_stopped`, `num_cut_off` and `num_aborted` requests, and `time_to_first_token`,
        `inter_token_latency` and `request_latency`: each the sum of durations in seconds, and how many were at most
        each of `bounds`, then in all.
        """
    def stats(self) -> dict[str, int]:
        """Counters since the engine was made, and the state of queues and KV cache."""

@final
class Hub:
    """Requests that come and go while one thread waits for the news of all."""

    def submit(
        self,
        requests: Iterable[
            tuple[
                AbcSequence[SupportsIndex],
                Iterable[SupportsIndex],
                nanovllm.engine.sequence.SamplingOptions,
                SupportsIndex,
            ]
        ],
        skip_special_tokens: bool,
    ) -> None:
        """Takes requests in as `Engine.submit` does, each of whose tokens is news."""
    def embed(
        self,
        requests: Iterable[tuple[SupportsIndex, Iterable[SupportsIndex], SupportsIndex]],
        pooling: str,
        normalize: bool,
    ) -> None:
        """Takes prompts to be embedded in as `Engine.embed` does."""
    def drop_requests(self, seq_ids: list[int]) -> None:
        """Drops requests, of which nothing more is told."""
    def wait(self, seconds: float) -> list[Any]:
        """Waits for news as `Call.news` gives them, for so many seconds at most.

        A request that failed is `(seq_id, exception)`.
        """
    def close(self) -> None:
        """Drops all requests, and has `wait` raise."""

@final
class FinishedSequence:
    """A finished sequence."""

    @property
    def seq_id(self) -> int: ...
    @property
    def token_ids(self) -> list[int]:
        """Its tokens."""
    @property
    def text(self) -> str | None:
        """Its text, where a stop string might have ended it; else None."""
    @property
    def finish_reason(self) -> str:
        """`stop` or `length`."""
    @property
    def stop_reason(self) -> int | str | None:
        """The token or the text that its request stopped at; None where it ended by itself."""
    @property
    def logprobs(self) -> list[tuple[float, int, list[tuple[int, float]]]]:
        """Of each token how likely it was, its rank, and the likeliest tokens with theirs; nothing unless asked for."""
    @property
    def prompt_logprobs(self) -> list[tuple[float, int, list[tuple[int, float]]]]:
        """The same of the tokens of the prompt from the second on."""
    @property
    def embedding(self) -> NDArray[np.float32] | None:
        """The prompt's embedding, float32 `[hidden_size]`, where that was asked for; else None."""
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_cached_tokens(self) -> int:
        """Tokens of the prompt found in the prefix cache; all of them where another answer's prompt was shared."""
    @property
    def timing(self) -> tuple[float, float]:
        """Seconds from when it was queued to its first token, and to its end."""

@final
class GgufFile:
    """A GGUF model, opened for reading; any shard of a split one (`NAME-00001-of-0000N.gguf`) opens them all.

    The files are mapped and read tensor by tensor; they must not be changed while the object lives.

    Raises:
        ModelNotFoundError: A file is missing.
        ModelFormatError: A file is not GGUF, or damaged; the message says what is wrong.
    """

    def __new__(cls, path: str | PathLike[str]) -> GgufFile: ...
    @property
    def version(self) -> int:
        """The version of the format."""
    @property
    def metadata(self) -> dict[str, bool | int | float | str | list[Any]]:
        """The metadata in file order, a new dict each time; bytes of strings that are not UTF-8 become U+FFFD."""
    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """The tensors by name in file order, a new dict each time."""
    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a tensor, one-dimensional; KeyError if there is none of that name."""
    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor in float32, dequantised where it is quantised.

        Raises:
            KeyError: There is no tensor of that name.
            UnsupportedModelError: Its type cannot be dequantised.
            ModelFormatError: The file has become shorter since it was opened.
        """
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the model as one file of version 3, which appears when it is complete; a split model is merged."""

@final
class Linear:
    """`y = x @ weight.T (+ bias)`."""

    def __new__(cls, *, device: str) -> Linear: ...
    def forward(self, x: Any, weight: Parameter, bias: Parameter | None) -> Any:
        """`[..., inputs] -> [..., outputs]`."""

@final
class ModelRunner:
    """A loaded model with its KV cache."""

    def __new__(cls, config: Any, checkpoint: Checkpoint | None = None) -> ModelRunner: ...
    @property
    def num_kvcache_blocks(self) -> int: ...
    def run(self, seqs: Iterable[Sequence], is_prefill: bool) -> list[int]:
        """Computes a step of these sequences and returns a token for each."""
    def last_logits(
        self,
        input_ids: list[int],
        positions: list[int],
        is_prefill: bool,
        *,
        cu_seqlens_q: list[int] | None,
        cu_seqlens_k: list[int] | None,
        slot_mapping: list[int],
        context_lens: list[int] | None,
        block_tables: list[list[int]] | None,
    ) -> NDArray[np.float32]:
        """The logits of each sequence's last row, `[num_seqs, vocab_size]`, of a step given as nano-vLLM's arrays.

        In prefill `cu_seqlens_q` and `cu_seqlens_k` are offsets; in decode, `context_lens` are lengths.
        """
    def close(self) -> None:
        """Frees the model, unless it is a running engine's; every later call is refused."""
    def logits(self, token_ids: Iterable[SupportsIndex], chunk_sizes: list[int] | None = None) -> NDArray[np.float32]:
        """The logits of every position, `[len(token_ids), vocab_size]`.

        The prompt runs through the paged cache in chunks of the given sizes (all at once without them; chunks of 1
        decode), on blocks scattered over the pool.
        """

@disjoint_base
class Parameter:
    """One rank's parameter: a matrix `[outputs, inputs]` or a vector `[outputs]`, of one or more stored tensors."""

    def __new__(
        cls,
        outputs: AbcSequence[SupportsIndex],
        inputs: SupportsIndex | None,
        *,
        tp_dim: int | None,
        tp_rank: SupportsIndex,
        tp_size: SupportsIndex,
    ) -> Parameter:
        """`outputs` are the sizes of the stacked tensors, `inputs` their columns (None for vectors), over all ranks.

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
class Qwen3:
    """Runs Qwen3's modules on a device."""

    def __new__(cls, *, device: str) -> Qwen3: ...
    def attention(self, module: Any, positions: Any, hidden_states: Any, context: Any) -> Any:
        """Self-attention of a `Qwen3Attention`, `[rows, hidden] -> [rows, hidden]`."""
    def mlp(self, module: Any, x: Any) -> Any:
        """The gated feed-forward of a `Qwen3MLP`, `[rows, hidden] -> [rows, hidden]`."""
    def decoder_layer(
        self, module: Any, positions: Any, hidden_states: Any, residual: Any | None, context: Any
    ) -> tuple[Any, Any]:
        """A `Qwen3DecoderLayer`: what its MLP gives and the residual stream, each `[rows, hidden]`.

        The first layer has no residual.
        """
    def model(self, module: Any, input_ids: Any, positions: Any, context: Any) -> Any:
        """A `Qwen3Model`: normed hidden states of the tokens, `[rows] -> [rows, hidden]`, in the embedding's type."""

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
class SafeTensors:
    """Safetensors files, opened for reading: one, or those of a directory (that its index names, else all).

    The files are mapped and read tensor by tensor; they must not be changed while the object lives.

    Raises:
        ModelNotFoundError: A file is missing.
        ModelFormatError: A file or the index is damaged; the message says what is wrong.
    """

    def __new__(cls, path: str | PathLike[str]) -> SafeTensors: ...
    @property
    def metadata(self) -> dict[str, str]:
        """The free-form metadata, a new dict each time; where two files have a key, the first one's value."""
    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """The tensors by name in file order, a new dict each time."""
    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a tensor, one-dimensional; KeyError if there is none of that name."""
    def tensor(self, name: str) -> NDArray[Any]:
        """A tensor in its own type.

        BF16 and the 8-bit floats are those of `ml_dtypes` where that is installed, else their bits as uint16 or uint8.

        Raises:
            KeyError: There is no tensor of that name.
            UnsupportedModelError: An element is less than a byte.
            ModelFormatError: The file has become shorter since it was opened.
        """

@disjoint_base
class Scheduler:
    """Decides which sequences the next step computes.

    It owns the sequences that are added until they finish; the objects that were added stay the handles to them.
    `config` is any object with `max_num_seqs`, `max_num_batched_tokens`, `eos` (an id, several, or -1),
    `kvcache_block_size` and `num_kvcache_blocks`, perhaps with `max_model_len` and `scheduling_policy` ("nano-vllm",
    the default here, or "default"); or a running engine, whose scheduler this then is.
    """

    def __new__(cls, config: object) -> Scheduler: ...
    def __init__(self, config: object) -> None:
        """For subclasses to call: the scheduler is made by `__new__`."""
    def is_finished(self) -> bool:
        """Whether no sequence waits or runs."""
    def add(self, seq: Sequence) -> None:
        """Queues a sequence, which is the scheduler's until it finishes."""
    def schedule(self) -> tuple[list[nanovllm.engine.sequence.Sequence], bool]:
        """Decides the next step: its sequences, and whether it is a prefill.

        A step that was not answered with `postprocess` is taken back first. Empty when nothing is left to do.
        """
    def postprocess(self, seqs: Iterable[Sequence], token_ids: Iterable[SupportsIndex], is_prefill: bool) -> None:
        """Books the step's tokens: the sequences that `schedule` returned, and one token for each.

        That of a sequence whose prompt is not finished is ignored.
        """
    def preempt(self, seq: Sequence) -> None:
        """Takes a sequence's blocks and puts it at the head of the waiting queue."""
    @property
    def waiting(self) -> nanovllm.engine.scheduler.QueueSnapshot:
        """The waiting queue: a copy, of the sequences themselves."""
    @property
    def running(self) -> nanovllm.engine.scheduler.QueueSnapshot:
        """The running queue: a copy, of the sequences themselves."""
    @property
    def block_manager(self) -> BlockManager:
        """The KV pool's books."""
    @property
    def block_size(self) -> int: ...
    eos: Any
    """The id that ends a sequence, -1 for none; a list where there are several."""
    max_num_seqs: int
    """Sequences of one step at most."""
    max_num_batched_tokens: int
    """Tokens of one prefill step at most."""

@disjoint_base
class Sequence:
    """The base of `nanovllm.engine.sequence.Sequence`."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Sequence: ...
    def _init(
        self,
        seq_id: SupportsIndex,
        token_ids: Iterable[SupportsIndex],
        sampling_params: nanovllm.engine.sequence.SamplingOptions,
        block_size: SupportsIndex,
    ) -> None:
        """Makes the sequence."""
    seq_id: int
    """Number in the order of making; what `step` returns."""
    _status: int
    """1, 2 or 3: waiting, running, finished."""
    num_cached_tokens: int
    """Tokens whose keys and values are in the cache."""
    num_scheduled_tokens: int
    """Tokens that the step under way computes."""
    is_prefill: bool
    """False once it has been scheduled for decoding, until it is preempted."""
    block_table: list[int]
    """Its blocks in order: a copy, which can be assigned back."""
    temperature: float
    """Divides the logits; 0 is greedy."""
    max_tokens: int | None
    """Tokens to generate at most."""
    ignore_eos: bool
    """Whether it goes on past an end-of-sequence token."""
    @property
    def is_finished(self) -> bool:
        """Whether it is done."""
    @property
    def finish_reason(self) -> str | None:
        """`stop` or `length` once it is finished."""
    @property
    def token_ids(self) -> list[int]:
        """Prompt and completion: a copy."""
    @property
    def prompt_token_ids(self) -> list[int]:
        """The prompt: a copy."""
    @property
    def completion_token_ids(self) -> list[int]:
        """The tokens generated so far: a copy."""
    @property
    def last_token(self) -> int:
        """The newest token."""
    @property
    def num_tokens(self) -> int:
        """Tokens in prompt and completion."""
    @property
    def num_prompt_tokens(self) -> int:
        """Tokens in the prompt."""
    @property
    def num_completion_tokens(self) -> int:
        """Tokens generated so far."""
    @property
    def num_blocks(self) -> int:
        """Blocks its tokens fill, the last perhaps in part."""
    @property
    def last_block_num_tokens(self) -> int:
        """Tokens in the last block."""
    def block(self, i: int) -> list[int]:
        """The tokens of block `i`."""
    def append_token(self, token_id: SupportsIndex) -> None:
        """Appends a generated token."""
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> list[int]: ...
    def __getstate__(self) -> _State: ...
    def __setstate__(self, state: _State) -> None: ...

@final
class SiluAndMul:
    """`silu(gate) * up` of rows that hold gate and up side by side."""

    def __new__(cls, *, device: str) -> SiluAndMul: ...
    def forward(self, x: Any) -> Any:
        """`[..., 2 n] -> [..., n]`."""

@final
class TensorInfo:
    """A tensor's entry in its file."""

    @property
    def name(self) -> str:
        """The name, unique in the model."""
    @property
    def dtype(self) -> str:
        """The element type as the format writes it: "F32", "Q4_K", "BF16"."""
    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in numpy's order, outermost first (GGUF itself counts from the innermost)."""
    @property
    def nbytes(self) -> int:
        """The size of the stored data in bytes."""

@final
class Tokenizer:
    """A model's tokenizer."""

    def __new__(cls, state: str) -> Tokenizer: ...
    def __getnewargs__(self) -> tuple[str]: ...
    def __copy__(self) -> Tokenizer: ...
    def __deepcopy__(self, _memo: Any, /) -> Tokenizer: ...
    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`."""
    def encode_batch(
        self,
        texts: list[tuple[str, str | None]],
        add_special_tokens: bool,
        truncation: tuple[int, str, str] | None,
    ) -> list[tuple[list[int], list[int]]]:
        """Ids and type ids of each text, or pair of texts.

        `truncation` is a length, a strategy and a side, as transformers names them.
        """
    def tokenize(self, text: str, pair: str | None, add_special_tokens: bool) -> list[str]:
        """The tokens of a text, or of a pair of texts, as the vocabulary writes them."""
    def num_special_tokens_to_add(self, pair: bool) -> int:
        """How many tokens are put around and between the texts of a sequence."""
    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens as the vocabulary writes them."""
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
        """The prompt text of `messages`. All but the flag and the template are JSON texts.

        Python's signal handlers run meanwhile.
        """
    def chat_template_variables(self, template: str | None, has_tools: bool) -> set[str]:
        """The names that the template which a chat would use reads and does not set itself."""
    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it."""
    def id_to_token(self, token_id: SupportsIndex) -> str | None:
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
    def special_tokens(self) -> list[tuple[str, str]]:
        """The tokens with a role that are in the vocabulary, by transformers' names of the roles."""
    @property
    def additional_special_tokens(self) -> list[str]:
        """Further special tokens that the model's files list."""
    @property
    def model_max_length(self) -> int | None:
        """The most tokens of a sequence, if the model's files say so."""
    @property
    def padding_side(self) -> str:
        """Where shorter sequences are filled up: `left` or `right`."""
    @property
    def truncation_side(self) -> str:
        """Where longer sequences are cut: `left` or `right`."""
    @property
    def clean_up_tokenization_spaces(self) -> bool:
        """Whether decoded text loses spaces before punctuation."""
    @property
    def model_input_names(self) -> list[str]:
        """What encoding returns unless it is told."""
    @property
    def is_bpe(self) -> bool:
        """Whether the model is byte-pair encoding."""
    @property
    def chat_template(self) -> str | None:
        """The model's chat template."""

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
