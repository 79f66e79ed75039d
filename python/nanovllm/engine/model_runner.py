"""Runs steps on the model: from scheduled sequences to arrays, and from arrays to tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nanovllm import _core
from nanovllm.config import HfConfig
from nanovllm.utils.context import get_context, reset_context, set_context

if TYPE_CHECKING:
    from nanovllm.config import Config

__all__ = ["ModelRunner"]

Ids = NDArray[np.int64]
Seqs = Iterable[_core.Sequence]


class ModelRunner:
    """A model with its KV cache, on one device.

    nano-vLLM's `run` is `prepare_prefill` or `prepare_decode`, `prepare_sample`, `run_model` and a sampler, with CUDA
    graphs for decoding. Here `run` is one call into Rust; the parts are there for programs that look at them or put
    steps together. Model and cache are allocated when the runner is made, and there is no warm-up.

    Args:
        config: A `Config`, or any object with nano-vLLM's fields, which gets the others' defaults;
            `num_kvcache_blocks` is filled in.
        rank: The rank of this process; there is one, 0.
        event: Accepted for nano-vLLM's programs: with one rank there is nobody to signal.

    Raises:
        ValueError: Another rank or size than those of one device.
        MemoryError: The model or its KV cache does not fit.
    """

    def __init__(self, config: Config, rank: int = 0, event: Any = ()) -> None:
        self._describe(config, rank, event)
        self._core: _core.ModelRunner | None = _core.ModelRunner(config, opened_files(config))
        config.num_kvcache_blocks = self._core.num_kvcache_blocks

    @classmethod
    def of_engine(cls, config: Config, engine: _core.Engine) -> ModelRunner:
        """The runner of a running engine."""
        runner = cls.__new__(cls)
        runner._describe(config, 0, ())
        runner._core = engine.model_runner
        return runner

    def _describe(self, config: Config, rank: int, event: Any) -> None:
        if config.tensor_parallel_size != 1 or rank != 0:
            size = config.tensor_parallel_size
            raise ValueError(f"tensor_parallel_size must be 1 and rank 0 on the cpu device, got {size} and {rank}")
        self.config = config
        self.block_size = config.kvcache_block_size
        self.enforce_eager = config.enforce_eager
        self.world_size = config.tensor_parallel_size
        self.rank = rank
        self.event = event
        self.graph_bs = [] if config.enforce_eager else _core.graph_batch_sizes(config.max_num_seqs)
        """Batch sizes of decode steps that nano-vLLM would capture as CUDA graphs; no device here captures any."""

    def warmup_model(self) -> None:
        """Computes one row that is stored nowhere: every weight is read once, and the device's threads run."""
        self._runner.last_logits(
            [0],
            [0],
            False,
            cu_seqlens_q=None,
            cu_seqlens_k=None,
            slot_mapping=[-1],
            context_lens=[1],
            block_tables=[[0]],
        )

    def prepare_block_tables(self, seqs: Seqs) -> NDArray[np.int32]:
        """The block tables of `seqs`, `[num_seqs, blocks of the longest]`, padded with -1."""
        return _core.prepare_block_tables(seqs)

    def prepare_prefill(self, seqs: Seqs) -> tuple[Ids, Ids]:
        """Token ids and positions, each `[rows]`, of the scheduled chunks of `seqs`; the rest goes to the context.

        Raises:
            PreconditionError: A sequence has fewer tokens than are cached and scheduled, or blocks for fewer.
        """
        input_ids, positions, cu_q, cu_k, max_q, max_k, slot_mapping, block_tables = _core.prepare_prefill(seqs)
        set_context(True, cu_q, cu_k, max_q, max_k, slot_mapping=slot_mapping, block_tables=block_tables)
        return input_ids, positions

    def prepare_decode(self, seqs: Seqs) -> tuple[Ids, Ids]:
        """Token ids and positions, each `[num_seqs]`, of the newest tokens of `seqs`; the rest goes to the context.

        Raises:
            PreconditionError: There are no sequences, or one has no blocks.
        """
        input_ids, positions, slot_mapping, context_lens, block_tables = _core.prepare_decode(seqs)
        set_context(False, slot_mapping=slot_mapping, context_lens=context_lens, block_tables=block_tables)
        return input_ids, positions

    def prepare_sample(self, seqs: Seqs) -> NDArray[np.float32]:
        """The temperatures of `seqs`, `[num_seqs]`."""
        return _core.prepare_sample(seqs)

    def graph_batch_size(self, num_seqs: int) -> int | None:
        """The size of `graph_bs` that nano-vLLM would pad a decode step of `num_seqs` to; None where it would not."""
        return _core.graph_batch_size(self.graph_bs, num_seqs)

    def run_model(self, input_ids: Any, positions: Any, is_prefill: bool) -> NDArray[np.float32]:
        """The logits of each sequence's last row, `[num_seqs, vocab_size]`, of the step that the context describes.

        `input_ids` and `positions` are `[rows]`, as `prepare_prefill` and `prepare_decode` give them.

        Raises:
            ValueError: A token id is outside the vocabulary, or the arrays are not those of one step of the KV cache.
        """
        context = get_context()
        return self._runner.last_logits(
            _list(input_ids),
            _list(positions),
            is_prefill,
            cu_seqlens_q=_optional(context.cu_seqlens_q),
            cu_seqlens_k=_optional(context.cu_seqlens_k),
            slot_mapping=_optional(context.slot_mapping) or [],
            context_lens=_optional(context.context_lens),
            block_tables=_optional(context.block_tables),
        )

    def run(self, seqs: Seqs, is_prefill: bool) -> list[int]:
        """Computes a step and returns a token for each sequence.

        That of a sequence whose prompt is not finished means nothing; `Scheduler.postprocess` ignores it.

        Raises:
            ValueError: The sequences do not make a step of this model and its KV cache.
        """
        token_ids = self._runner.run(seqs, is_prefill)
        reset_context()
        return token_ids

    def call(self, method_name: str, *args: Any) -> Any:
        """Calls a method by name, as nano-vLLM does on every rank.

        Raises:
            AttributeError: There is no such method.
        """
        return getattr(self, method_name)(*args)

    def exit(self) -> None:
        """Frees the model and its cache, unless they are a running engine's. The runner is of no use afterwards."""
        runner, self._core = self._core, None
        if runner is not None:
            runner.close()

    @property
    def _runner(self) -> _core.ModelRunner:
        if self._core is None:
            raise RuntimeError("the model runner was closed by exit()")
        return self._core


def _list(values: Any) -> Any:
    """The numbers of an array, numpy's or torch's, as a list or a list of lists."""
    return np.asarray(values).tolist()


def _optional(values: Any) -> Any:
    return None if values is None else _list(values)


def opened_files(config: Config) -> _core.Checkpoint | None:
    """The model's files, if making `config` has opened them and no other engine has taken them since."""
    hf_config = getattr(config, "hf_config", None)
    return hf_config.take_checkpoint() if isinstance(hf_config, HfConfig) else None
