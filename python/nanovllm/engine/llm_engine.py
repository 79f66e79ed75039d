"""nano-vLLM's LLMEngine queues prompts, takes steps and collects answers. A step is one call that releases the GIL."""

import contextlib
import logging
import os
import warnings
from collections.abc import Mapping, Set
from collections.abc import Sequence as AbcSequence
from dataclasses import fields
from numbers import Integral
from typing import Any, TypedDict, cast

from nanovllm._core import Engine, FinishedSequence
from nanovllm.config import Config
from nanovllm.engine.model_runner import ModelRunner, opened_files
from nanovllm.engine.scheduler import Scheduler
from nanovllm.engine.sequence import Sequence
from nanovllm.sampling_params import SamplingParams
from nanovllm.utils.conversation import Message, is_conversation_list
from nanovllm.utils.hub import resolve_model
from nanovllm.utils.progress import Progress
from nanovllm.utils.tokenizer import Tokenizer

_LOGGER = logging.getLogger("nanovllm")

Prompt = str | AbcSequence[int]
"""A prompt is text or token ids."""


class GenerateOutput(TypedDict):
    """The answer to one prompt."""

    text: str
    """The decoded answer, with special tokens unless they were skipped."""
    token_ids: list[int]
    """The generated tokens, the one that ended the answer included."""
    finish_reason: str
    """`stop` at an end-of-sequence token, `length` at a limit."""
    num_prompt_tokens: int
    """Tokens of the prompt."""
    num_cached_tokens: int
    """Tokens of the prompt found in the prefix cache."""


class LLMEngine:
    """A model with its scheduler and KV cache.

    `scheduler` and `model_runner` are views on what runs. A step may be taken by hand, as nano-vLLM's `step` takes it:
    `scheduler.schedule()`, `model_runner.run(...)`, `scheduler.postprocess(...)`. What ends in such a step is on the
    `Sequence` objects and in no later `step()`'s outputs.

    Args:
        model: A directory, a .gguf file, or a Hugging Face id (`owner/name`, `owner/name:file.gguf`).
        **kwargs: Fields of `nanovllm.config.Config`. An unknown one is ignored with a warning.

    Raises:
        ModelNotFoundError: No such model here, nor could it be downloaded.
        ModelFormatError: A file of the model is damaged.
        UnsupportedModelError: The architecture or a tensor type is not supported.
        MemoryError: The model or its KV cache does not fit.
        ValueError: An option is outside its limits.
    """

    def __init__(self, model: str | os.PathLike[str], **kwargs: Any) -> None:
        known = {field.name for field in fields(Config)} - {"model"}
        for name in sorted(kwargs.keys() - known):
            warnings.warn(f"LLM ignores the unknown argument {name!r}", stacklevel=2)
        self.config = config = Config(resolve_model(model), **{k: v for k, v in kwargs.items() if k in known})
        engine = Engine(config, opened_files(config))
        for note in engine.notes:
            _LOGGER.warning("%s: %s", config.model, note)
        self._open: Engine | None = engine
        self.tokenizer = Tokenizer(engine.tokenizer)
        config.eos = -1 if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id
        config.num_kvcache_blocks = engine.stats()["num_kvcache_blocks"]
        # Views on what runs, for programs that look into the engine or step by hand.
        Sequence.block_size = config.kvcache_block_size
        self.scheduler = Scheduler(engine)
        self.model_runner = ModelRunner.of_engine(config, engine)
        self._finished: dict[int, FinishedSequence] = {}  # what `step` is about to hand out

    def add_request(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> int:
        """Queues a prompt, which `step` will answer, and returns its sequence id.

        Raises:
            ValueError: The prompt is empty, has a token id outside the vocabulary, is longer than `max_model_len`
                allows or can never fit the KV cache, or a sampling option is outside its limits.
            TypeError: The prompt is neither text nor integers.
        """
        params = SamplingParams() if sampling_params is None else sampling_params
        token_ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        seq_id = next(Sequence.counter)
        self._engine.add_request(seq_id, token_ids, params)
        return seq_id

    def step(self) -> tuple[list[tuple[int, list[int]]], int]:
        """Runs one prefill or decode step.

        Returns:
            `(seq_id, token_ids)` of each sequence that finished, and the number of prompt tokens computed, or minus
            the number of tokens decoded. An idle engine gives `([], 0)`.
        """
        # An interrupted call may have left sequences there that were not handed out yet: they come first.
        num_tokens = 0 if self._finished else self._engine.step(self._finished)
        outputs = [(seq_id, self._finished.pop(seq_id, None)) for seq_id in list(self._finished)]
        return [(seq_id, seq.token_ids) for seq_id, seq in outputs if seq is not None], num_tokens

    def is_finished(self) -> bool:
        """Whether every added sequence is finished and handed out."""
        return self._engine.is_finished() and not self._finished

    def abort(self, seq_id: int) -> bool:
        """Drops a sequence and frees its cache; False when there is none of that id."""
        if not 0 <= seq_id < 2**64:
            return False
        found = self._engine.abort(seq_id)
        return self._finished.pop(seq_id, None) is not None or found

    def generate(
        self,
        prompts: Prompt | AbcSequence[Prompt],
        sampling_params: SamplingParams | AbcSequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        skip_special_tokens: bool = False,
    ) -> list[GenerateOutput]:
        """Answers every prompt; the results are in the prompts' order.

        Args:
            prompts: Texts or lists of token ids; a single one is a list of one.
            sampling_params: One for all, or one for each prompt.
            use_tqdm: Show progress and the tokens a second of prefill and decode on standard error.
            skip_special_tokens: Leave special tokens out of `text`.

        Raises:
            ValueError: A request is invalid (see `add_request`), or prompts and params differ in number. Nothing stays
                queued, whatever interrupts the call.
            TypeError: `prompts` is neither text, token ids nor a list of these.
        """
        batch = _as_batch(prompts)
        params = _as_params(sampling_params, len(batch))
        encoded = [self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in batch]
        seq_ids = [next(Sequence.counter) for _ in encoded]
        requests = list(zip(seq_ids, encoded, params, strict=True))
        # No variable refers to the call, so that it goes with whatever interrupts this, at any place.
        if use_tqdm:
            with Progress(requests, self.config.max_model_len) as progress:
                sequences = self._engine.submit(requests).results(progress.report)
        else:
            sequences = self._engine.submit(requests).results()
        done = {seq.seq_id: seq for seq in sequences}
        return [
            GenerateOutput(
                text=self.tokenizer.decode(seq.token_ids, skip_special_tokens),
                token_ids=seq.token_ids,
                finish_reason=seq.finish_reason,
                num_prompt_tokens=seq.num_prompt_tokens,
                num_cached_tokens=seq.num_cached_tokens,
            )
            for seq in (done[seq_id] for seq_id in seq_ids)
        ]

    def chat(
        self,
        messages: AbcSequence[Message] | AbcSequence[AbcSequence[Message]],
        sampling_params: SamplingParams | AbcSequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        skip_special_tokens: bool = True,
        add_generation_prompt: bool = True,
        **template_options: Any,
    ) -> list[GenerateOutput]:
        """Answers a conversation, or each of several, through the model's chat template.

        Unlike in `generate`, `text` leaves special tokens out, so that it can go back as a message. The remaining
        options are those of `tokenizer.apply_chat_template`, and errors are its and those of `generate`.
        """
        prompts = self.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            **template_options,
        )
        if not is_conversation_list(messages):
            prompts = [prompts]
        return self.generate(prompts, sampling_params, use_tqdm, skip_special_tokens=skip_special_tokens)

    def stats(self) -> dict[str, int]:
        """Counters since the engine was made, and the present state of its queues and KV cache.

        Counted are `num_requests`, `num_steps`, `num_prefilled_tokens`, `num_cached_tokens` (of prompts, found in the
        prefix cache), `num_generated_tokens` and `num_preemptions`. The state is `num_waiting` and `num_running`
        sequences, and `num_free_blocks` of `num_kvcache_blocks`.
        """
        return self._engine.stats()

    @property
    def description(self) -> str:
        """Architecture, device, instruction set and threads, for logs."""
        return self._engine.description

    def exit(self) -> None:
        """Frees the model and its cache. The engine is of no use afterwards; calling it again does nothing."""
        engine, self._open = self._open, None
        if engine is not None:
            # Refused in a forked child and in the middle of a step of this thread: it is freed with the last reference.
            with contextlib.suppress(RuntimeError):
                engine.close()

    @property
    def _engine(self) -> Engine:
        if self._open is None:
            raise RuntimeError("the engine was closed by exit()")
        return self._open


def _as_batch(prompts: Prompt | AbcSequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, (bytes, bytearray, Mapping, Set)):
        raise TypeError(f"prompts must be texts or lists of token ids, got {type(prompts).__name__}")
    items: list[Any] = list(prompts)
    return [items] if items and isinstance(items[0], Integral) else items


def _as_params(params: SamplingParams | AbcSequence[SamplingParams] | None, num_prompts: int) -> list[SamplingParams]:
    if params is None:
        params = SamplingParams()
    if hasattr(params, "temperature"):  # ours, or any object with nano-vLLM's three fields
        return [cast("SamplingParams", params)] * num_prompts
    params = list(params)
    if len(params) != num_prompts:
        raise ValueError(
            f"got {num_prompts} prompts but {len(params)} sampling params; give one, or one for each prompt"
        )
    return params
