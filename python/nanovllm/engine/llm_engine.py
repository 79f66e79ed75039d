"""nano-vLLM's LLMEngine queues prompts, takes steps and collects answers. A step is one call that releases the GIL."""

import contextlib
import inspect
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Set
from collections.abc import Sequence as AbcSequence
from dataclasses import fields
from numbers import Integral
from typing import Any, TypeVar, cast

from nanovllm._core import Call, Engine, FinishedSequence
from nanovllm.config import Config
from nanovllm.engine.embedding_state import EmbeddingState
from nanovllm.engine.model_runner import ModelRunner, opened_files
from nanovllm.engine.request_state import RequestState
from nanovllm.engine.scheduler import Scheduler
from nanovllm.engine.sequence import Sequence
from nanovllm.metrics import Metrics, metrics
from nanovllm.outputs import EmbeddingOutput, RequestOutput, ScoreOutput
from nanovllm.sampling_params import RequestOutputKind, SamplingParams
from nanovllm.utils.conversation import Message, is_conversation_list
from nanovllm.utils.hub import resolve_model
from nanovllm.utils.names import did_you_mean
from nanovllm.utils.progress import Progress
from nanovllm.utils.tokenizer import Tokenizer

_LOGGER = logging.getLogger("nanovllm")

_Self = TypeVar("_Self", bound="LLMEngine")

Prompt = str | AbcSequence[int]
"""A prompt is text or token ids."""


class LLMEngine:
    """A model with its scheduler and KV cache, which answers prompts.

    `generate` and `chat` answer any number of prompts at once, `stream` one as it is written; `score` says how likely
    texts are, `embed` makes vectors of them. Threads may share an engine: what they ask is computed together. Each
    process needs one of its own. `AsyncLLM` is for asyncio.

        with LLM("/path/to/model.gguf") as llm:
            print(llm.generate("The sky is")[0].text)

    `scheduler` and `model_runner` are views on what runs. A step may be taken by hand, as nano-vLLM's `step` takes it:
    `scheduler.schedule()`, `model_runner.run(...)`, `scheduler.postprocess(...)`. What ends in such a step is on the
    `Sequence` objects and in no later `step()`'s outputs.

    As a context manager it is closed at the end of the block, as by `exit`.

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
        if kwargs.get("scheduling_policy") == "mixed":
            kwargs.setdefault("kvcache_block_size", 32)
        known = {field.name for field in fields(Config)} - {"model"}
        for name in sorted(kwargs.keys() - known):
            warnings.warn(f"LLM ignores the unknown argument {name!r}{did_you_mean(name, known)}", stacklevel=2)
        self.config = config = Config(resolve_model(model), **{k: v for k, v in kwargs.items() if k in known})
        engine = Engine(config, opened_files(config))
        for note in engine.notes:
            _LOGGER.warning("%s: %s", config.model, note)
        self._open: Engine | None = engine
        self.tokenizer = Tokenizer(engine.tokenizer, str(config.model))
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
        _check_params(params, "sampling_params")
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
        """Drops a sequence and frees its cache; False when there is none of that id.

        Raises:
            TypeError: `seq_id` is not an integer.
        """
        if isinstance(seq_id, bool) or not isinstance(seq_id, Integral):
            raise TypeError(f"seq_id must be an integer, not {type(seq_id).__name__}")
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
        priority: int | AbcSequence[int] = 0,
    ) -> list[RequestOutput]:
        """Answers every prompt; the results are in the prompts' order.

        Args:
            prompts: Texts or lists of token ids; a single one is a list of one.
            sampling_params: One for all, or one for each prompt.
            use_tqdm: Show progress and the tokens a second of prefill and decode on standard error.
            skip_special_tokens: Leave special tokens out of `text`, of requests whose params do not say.
            priority: The lower, the sooner a prompt is computed, among those of all callers; one for all, or one for
                each prompt.

        Returns:
            A `RequestOutput` for each prompt: a dict with `text`, `token_ids` and more, whose keys are attributes too.

        Raises:
            ValueError: A request is invalid (see `add_request`), or prompts and params differ in number. Of several
                prompts the message says which. Nothing stays queued, whatever interrupts the call.
            TypeError: `prompts` is neither text, token ids nor a list of these.
        """
        batch = _as_batch(prompts)
        params = _as_params(sampling_params, len(batch))
        priorities = _as_priorities(priority, len(batch))
        requests = [
            self._request(prompt, own, skip_special_tokens, at if len(batch) > 1 else None, priority=sooner)
            for at, (prompt, own, sooner) in enumerate(zip(batch, params, priorities, strict=True))
        ]
        queued = [request.queued for request in requests]
        # No variable refers to the call, so that it goes with whatever interrupts this, at any place.
        if use_tqdm:
            with Progress(queued, self.config.max_model_len) as progress:
                sequences = self._engine.submit(queued, skip_special_tokens).results(progress.report)
        else:
            sequences = self._engine.submit(queued, skip_special_tokens).results()
        done = {seq.seq_id: seq for seq in sequences}
        outputs = []
        for request in requests:
            for seq_id in request.seq_ids:
                request.add(done[seq_id])
            outputs.append(cast("RequestOutput", request.take(RequestOutputKind.FINAL_ONLY)))
        return outputs

    def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        skip_special_tokens: bool = False,
        priority: int = 0,
    ) -> Iterator[RequestOutput]:
        """Answers a prompt, token by token.

        The engine works while the next output is waited for, and for other callers meanwhile. When the iterator is
        closed or dropped, so is the request.

        Args:
            prompt: A text or token ids.
            sampling_params: How it samples; its `output_kind` says what each output has.
            skip_special_tokens: Leave special tokens out of `text`, if the params do not say.
            priority: The lower, the sooner it is computed.

        Returns:
            An iterator of outputs: of each step that brought something new what it has brought. Their texts add up to
            that of `generate`.

        Raises:
            Exception: What `generate` raises for a prompt.
        """
        (params,) = _as_params(sampling_params, 1)
        request = self._one_request(prompt, params, skip_special_tokens, priority=priority)
        kind = getattr(params, "output_kind", None) or RequestOutputKind.DELTA
        # No variable refers to the call, so that it goes with whatever interrupts this.
        return _outputs(self._engine.submit([request.queued], skip_special_tokens, True), request, kind)

    def _chat_prompts(
        self,
        messages: AbcSequence[Message] | AbcSequence[AbcSequence[Message]],
        add_generation_prompt: bool | None,
        tools: AbcSequence[dict[str, Any]] | None,
        documents: AbcSequence[dict[str, Any]] | None,
        chat_template: str | None,
        chat_template_kwargs: Mapping[str, Any] | None,
        continue_final_message: bool,
        template_variables: Mapping[str, Any],
    ) -> list[list[int]]:
        """The tokens that the chat template makes of each conversation."""
        if chat_template_kwargs is not None and not isinstance(chat_template_kwargs, Mapping):
            raise TypeError(f"chat_template_kwargs must be a dict, not {type(chat_template_kwargs).__name__}")
        variables = dict(chat_template_kwargs or {})
        own = inspect.signature(LLMEngine.chat).parameters.keys() - {"self", "template_variables"}
        template_options = inspect.signature(Tokenizer.apply_chat_template).parameters.keys()
        for name in variables.keys() & {*own, *template_options, *template_variables}:
            raise TypeError(f"chat_template_kwargs has {name!r}, which is a keyword of this call")
        if template_variables:
            used = self.tokenizer.chat_template_variables(chat_template, has_tools=tools is not None)
            for name in template_variables:
                _check_variable(name, used, own)
        prompts = self.tokenizer.apply_chat_template(
            messages,
            tools,
            documents,
            chat_template,
            not continue_final_message if add_generation_prompt is None else add_generation_prompt,
            tokenize=True,
            continue_final_message=continue_final_message,
            **variables,
            **template_variables,
        )
        return prompts if is_conversation_list(messages) else [prompts]

    def _one_request(
        self,
        prompt: Prompt,
        params: SamplingParams,
        skip_special_tokens: bool,
        request_id: str | None = None,
        priority: int = 0,
    ) -> RequestState:
        """The request of a caller that has one prompt."""
        _check_params(params, "sampling_params")
        prompt = _one_prompt(prompt, "a stream answers one prompt", "generate")
        return self._request(prompt, params, skip_special_tokens, request_id=request_id, priority=priority)

    def _request(
        self,
        prompt: Prompt,
        params: SamplingParams,
        skip_special_tokens: bool,
        at: int | None = None,
        request_id: str | None = None,
        priority: int = 0,
    ) -> RequestState:
        text = prompt if isinstance(prompt, str) else None
        token_ids = self._encode(prompt, at)
        return RequestState(text, token_ids, params, self.tokenizer, skip_special_tokens, request_id, priority)

    def chat(
        self,
        messages: AbcSequence[Message] | AbcSequence[AbcSequence[Message]],
        sampling_params: SamplingParams | AbcSequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        skip_special_tokens: bool = True,
        add_generation_prompt: bool | None = None,
        tools: AbcSequence[dict[str, Any]] | None = None,
        documents: AbcSequence[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool = False,
        priority: int | AbcSequence[int] = 0,
        **template_variables: Any,
    ) -> list[RequestOutput]:
        """Answers a conversation, or each of several, through the model's chat template.

        Unlike in `generate`, `text` leaves special tokens out, so that it can go back as a message.

        Args:
            messages: Messages in order, or a list of conversations.
            sampling_params: One for all, or one for each conversation.
            use_tqdm: Show progress on standard error.
            skip_special_tokens: Leave special tokens out of `text`.
            add_generation_prompt: End the prompt with what starts an answer; None unless it goes on with the last
                message.
            tools: Functions the model may call, as JSON schemas.
            documents: Documents for retrieval-augmented generation.
            chat_template: A Jinja template to use instead of the model's, or the name of one of the model's.
            chat_template_kwargs: Variables for the template, such as `{"enable_thinking": False}`.
            continue_final_message: End the prompt with the text of the last message, for the model to go on with it.
            priority: As `generate` takes it.
            **template_variables: The same as keywords, if the template uses them.

        Raises:
            TypeError: A keyword is neither an option nor a variable of the template.
            Exception: What `tokenizer.apply_chat_template` and `generate` raise.
        """
        prompts = self._chat_prompts(
            messages,
            add_generation_prompt,
            tools,
            documents,
            chat_template,
            chat_template_kwargs,
            continue_final_message,
            template_variables,
        )
        return self.generate(
            prompts, sampling_params, use_tqdm, skip_special_tokens=skip_special_tokens, priority=priority
        )

    def score(
        self,
        texts: Prompt | AbcSequence[Prompt],
        continuations: Prompt | AbcSequence[Prompt] | None = None,
        use_tqdm: bool = False,
    ) -> list[ScoreOutput]:
        """Says how likely texts are: each token after those before it, by the model's own logits.

        Args:
            texts: Texts or lists of token ids; a single one is a list of one.
            continuations: One for each text, which then is what stands before it: only its own tokens are scored.
            use_tqdm: Show progress on standard error.

        Returns:
            A `ScoreOutput` for each text: a dict with `logprob` and `logprobs`, whose keys are attributes too.

        Raises:
            ValueError: There is not one continuation for each text; otherwise as `generate`: a text must leave room for
                one token.
            TypeError: As `generate`.
        """
        batch = _as_batch(texts)
        after = [None] * len(batch) if continuations is None else _as_batch(continuations)
        if len(after) != len(batch):
            raise ValueError(f"got {len(batch)} texts but {len(after)} continuations; give one for each text")
        prompts, begins = [], []
        for at, (text, more) in enumerate(zip(batch, after, strict=True)):
            token_ids = list(self._encode(text, at if len(batch) > 1 else None))
            begins.append(1 if more is None else max(len(token_ids), 1))
            if isinstance(more, str):
                token_ids += self.tokenizer.encode(more, add_special_tokens=False)
            elif more is not None:
                token_ids += more
            prompts.append(token_ids)
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        scores = []
        for output, begin in zip(self.generate(prompts, params, use_tqdm), begins, strict=True):
            token_ids = output.prompt_token_ids
            places = zip(token_ids[begin:], output.prompt_logprobs[begin:], strict=True)
            logprobs = [place[token_id].logprob for token_id, place in places]
            scores.append(
                ScoreOutput(token_ids=token_ids, logprobs=[None] * begin + logprobs, logprob=math.fsum(logprobs))
            )
        return scores

    def embed(
        self,
        prompts: Prompt | AbcSequence[Prompt],
        use_tqdm: bool = False,
        *,
        pooling: str = "last",
        normalize: bool = True,
        priority: int | AbcSequence[int] = 0,
    ) -> list[EmbeddingOutput]:
        """Embeds every prompt: makes one vector of its hidden states, after the last norm.

        Args:
            prompts: Texts or lists of token ids, of `max_model_len` tokens at most; a single one is a list of one.
            use_tqdm: Show progress on standard error.
            pooling: `last` for the hidden state of the last token, which is what decoders are trained for as embedding
                models, or `mean` for the mean of all.
            normalize: Scale it to a Euclidean length of 1, so that products are cosines.
            priority: As `generate` takes it.

        Returns:
            An `EmbeddingOutput` for each prompt: a dict with `embedding`, a numpy array in float32, and more.

        Raises:
            ValueError: `pooling` is neither; otherwise as `generate`.
            TypeError: As `generate`.
        """
        batch = _as_batch(prompts)
        states = [
            self._embedding(prompt, at if len(batch) > 1 else None, priority=sooner)
            for at, (prompt, sooner) in enumerate(zip(batch, _as_priorities(priority, len(batch)), strict=True))
        ]
        queued = [state.queued for state in states]
        # No variable refers to the call, so that it goes with whatever interrupts this, at any place.
        if use_tqdm:
            with Progress(
                [([seq_id], prompt, None, 0) for seq_id, prompt, _ in queued], self.config.max_model_len
            ) as progress:
                sequences = self._engine.embed(queued, pooling, normalize).results(progress.report)
        else:
            sequences = self._engine.embed(queued, pooling, normalize).results()
        done = {seq.seq_id: seq for seq in sequences}
        for state in states:
            state.add(done[state.seq_ids[0]])
        return [cast("EmbeddingOutput", state.take()) for state in states]

    def _one_embedding(self, prompt: Prompt, request_id: str, priority: int) -> EmbeddingState:
        """The request of a caller that has one prompt."""
        prompt = _one_prompt(prompt, "AsyncLLM.embed takes one prompt", "LLM.embed")
        return self._embedding(prompt, request_id=request_id, priority=priority)

    def _embedding(
        self, prompt: Prompt, at: int | None = None, request_id: str | None = None, priority: int = 0
    ) -> EmbeddingState:
        text = prompt if isinstance(prompt, str) else None
        return EmbeddingState(text, self._encode(prompt, at), request_id, priority)

    def stats(self) -> dict[str, int]:
        """Counters since the engine was made, and the present state of its queues and KV cache.

        Counted are `num_requests`, `num_steps`, `num_prefilled_tokens`, `num_cached_tokens` (of prompts, found in the
        prefix cache), `num_generated_tokens` and `num_preemptions`. The state is `num_waiting` and `num_running`
        sequences, and `num_free_blocks` of `num_kvcache_blocks`.
        """
        return self._engine.stats()

    def metrics(self) -> Metrics:
        """What the engine has done and how fast, for whoever watches it: counters, queues, KV cache and latencies.

        It is as of the last step, and waits for nothing, on any thread.
        """
        return metrics(self._engine.metrics())

    @property
    def description(self) -> str:
        """Architecture, device, instruction set and threads, for logs."""
        return self._engine.description

    def exit(self) -> None:
        """Frees the model and its cache. The engine is of no use afterwards; calling it again does nothing."""
        engine = self._open
        if engine is not None:
            # Refused in a forked child and in the middle of a step of this thread: it is freed with the last reference.
            with contextlib.suppress(RuntimeError):
                engine.close()
            self._open = None  # not before: an interrupt in between leaves it to the next call

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.exit()

    def __reduce__(self) -> Any:
        raise TypeError(f"{type(self).__name__} cannot be pickled: make one in each process that uses it")

    def __repr__(self) -> str:
        name = type(self).__name__
        engine = getattr(self, "_open", None)
        if engine is None:
            return f"<{name}, closed>"
        config = self.config
        blocks = f"{config.num_kvcache_blocks} blocks of {config.kvcache_block_size} tokens"
        return (
            f"<{name} of {config.model!r}: {self.description}; "
            f"KV cache of {blocks}, {engine.kv_cache_bytes / 2**20:.1f} MiB>"
        )

    def _encode(self, prompt: Prompt, at: int | None) -> AbcSequence[int]:
        """The ids of a prompt; `at` is its place among several, which an error names."""
        if not isinstance(prompt, str):
            return prompt if hasattr(prompt, "__len__") or not _is_iterable(prompt) else list(prompt)
        try:
            token_ids: list[int] = self.tokenizer.encode(prompt)
            return token_ids
        except UnicodeEncodeError as error:
            if at is not None:
                error.reason += f" (prompts[{at}])"
            raise

    @property
    def _engine(self) -> Engine:
        if self._open is None:
            raise RuntimeError("the engine was closed by exit()")
        return self._open


def _with_options(doc: str | None) -> str | None:
    """The documentation of a class with the fields of `Config` in place of its `**kwargs`."""
    options = inspect.cleandoc(Config.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    begin = options.find("    max_num_batched_tokens:")
    if doc is None or begin < 0:  # python -OO keeps none
        return doc
    lines = (f"    {line}".rstrip() for line in options[begin:].splitlines())
    rest = "        **kwargs: An unknown argument is ignored with a warning."
    return re.sub(r" {8}\*\*kwargs:.*", lambda _: "\n".join((*lines, rest)), doc, count=1)


def _signature() -> inspect.Signature:
    """The signature of the constructor with the fields of `Config` spelt out, for `help` and editors."""
    kinds = inspect.Parameter
    options = [
        kinds(field.name, kinds.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(Config)
        if field.name != "model"
    ]
    (self, model, kwargs), returns = inspect.signature(LLMEngine.__init__).parameters.values(), None
    return inspect.Signature([self, model, *options, kwargs], return_annotation=returns)


LLMEngine.__doc__ = _with_options(LLMEngine.__doc__)
LLMEngine.__init__.__signature__ = _signature()  # type: ignore[attr-defined]


def _outputs(call: Call, request: RequestState, kind: RequestOutputKind) -> Iterator[RequestOutput]:
    """The outputs of a request, as they come; whatever ends this drops it."""
    try:
        while call.pending:
            for news in call.news():
                request.add(news)
            output = request.take(kind)
            if output is not None:
                yield output
    finally:
        with contextlib.suppress(RuntimeError):  # a forked child has nothing to close
            call.close()


def _as_batch(prompts: Prompt | AbcSequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, (bytes, bytearray, memoryview, Mapping, Set)) or not _is_iterable(prompts):
        raise TypeError(f"prompts must be text, token ids or a list of these, not {type(prompts).__name__}")
    items: list[Any] = list(prompts)
    for item in items:
        message = item[0] if isinstance(item, list) and item else item
        if isinstance(message, Mapping) and "role" in message:
            raise TypeError("generate takes texts or token ids; for chat messages use chat")
    return [items] if items and isinstance(items[0], Integral) else items


def _one_prompt(prompt: Prompt, rule: str, many: str) -> Prompt:
    batch = _as_batch(prompt) or [[]]  # which is refused as an empty prompt
    if len(batch) != 1:
        raise ValueError(f"{rule}, got {len(batch)}; {many} takes several")
    return batch[0]


def _as_params(params: SamplingParams | AbcSequence[SamplingParams] | None, num_prompts: int) -> list[SamplingParams]:
    if params is None:
        params = SamplingParams()
    if hasattr(params, "temperature") or isinstance(params, (str, Mapping)) or not _is_iterable(params):
        _check_params(params, "sampling_params")
        return [cast("SamplingParams", params)] * num_prompts
    params = list(params)
    if len(params) != num_prompts:
        raise ValueError(
            f"got {num_prompts} prompts but {len(params)} sampling params; give one, or one for each prompt"
        )
    for at, item in enumerate(params):
        _check_params(item, f"sampling_params[{at}]")
    return params


def _as_priorities(priority: int | AbcSequence[int], num_prompts: int) -> list[int]:
    if isinstance(priority, (Integral, str)) or not _is_iterable(priority):
        return [cast("int", priority)] * num_prompts  # the engine refuses what is no integer
    priorities = list(cast("AbcSequence[int]", priority))
    if len(priorities) != num_prompts:
        raise ValueError(
            f"got {num_prompts} prompts but {len(priorities)} priorities; give one, or one for each prompt"
        )
    return priorities


def _is_iterable(value: object) -> bool:
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def _check_params(params: object, name: str) -> None:
    """Raises TypeError unless this is sampling parameters: ours, or any object with nano-vLLM's three fields."""
    if isinstance(params, type) or not hasattr(params, "temperature"):
        hint = "; write SamplingParams(**options)" if isinstance(params, Mapping) else ""
        got = f"the class {params.__name__}" if isinstance(params, type) else type(params).__name__
        raise TypeError(f"{name} must be SamplingParams, not {got}{hint}")


def _check_variable(name: str, used: Set[str], own: Set[str]) -> None:
    """Raises TypeError for a keyword of `chat` that is no variable of the chat template; says what was meant."""
    sampling = {field.name for field in fields(SamplingParams)}
    if name in sampling:
        raise TypeError(f"{name!r} is a sampling option: write chat(messages, SamplingParams({name}=...))")
    if name not in used:
        near = did_you_mean(name, own | sampling | used)
        raise TypeError(
            f"chat got an unexpected keyword {name!r}, which the chat template does not use{near}; "
            "what the template should be given all the same goes in chat_template_kwargs"
        )
