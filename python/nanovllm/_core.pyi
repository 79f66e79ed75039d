"""The engine behind the package, in Rust."""

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any, SupportsFloat, SupportsIndex, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Engine",
    "FinishedSequence",
    "GgufFile",
    "ModelRunner",
    "SafeTensors",
    "TensorInfo",
    "Tokenizer",
    "__version__",
    "check_sampling_params",
    "dequantize",
    "ggml_types",
    "quantize",
    "read_config",
    "run_command",
]

__version__: str

def check_sampling_params(
    temperature: SupportsFloat, max_tokens: SupportsIndex, ignore_eos: bool, seed: SupportsIndex | None
) -> None:
    """Raises what `Engine.add_request` would for these options."""

def read_config(path: str | PathLike[str]) -> str:
    """The model's config.json as JSON text, or its equivalent made from GGUF metadata. No weight is read."""

def ggml_types() -> dict[str, tuple[int, int, int, bool]]:
    """Tensor types by ggml's name: its number, elements a block, bytes a block, and whether `quantize` writes it."""

def dequantize(dtype: str, data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> NDArray[np.float32]:
    """The float32 values, one-dimensional, of whole blocks of a type.

    Raises:
        ValueError: An unknown type, or bytes that are no whole blocks.
        TypeError: `data` is not bytes-like and no array of uint8.
    """

def quantize(dtype: str, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bytes of whole blocks of a type that hold `values`.

    Raises:
        ValueError: An unknown type or one without a quantiser, elements that are no whole blocks, or a value no block
            can hold.
        TypeError: `values` is no array of float32.
    """

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

def run_command(args: list[str], resolve: Callable[[str], str]) -> int:
    """Runs the command `nanovllm` with `args`, the program's name first, and gives its exit code.

    Args:
        args: The command line.
        resolve: From what the user calls a model to its path; the command reports an `Exception` that it raises.
    """
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
