"""An engine for asyncio: callers in any number of event loops and threads, each with a stream of outputs."""

import asyncio
import contextlib
import os
import threading
import uuid
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from nanovllm._core import Engine, Hub
from nanovllm.engine.embedding_state import EmbeddingState
from nanovllm.engine.llm_engine import Prompt
from nanovllm.engine.request_state import RequestState
from nanovllm.exceptions import QueueFullError
from nanovllm.llm import LLM
from nanovllm.metrics import Metrics
from nanovllm.outputs import EmbeddingOutput, RequestOutput
from nanovllm.sampling_params import RequestOutputKind, SamplingParams
from nanovllm.utils.conversation import Message
from nanovllm.utils.tokenizer import Tokenizer

_Self = TypeVar("_Self", bound="AsyncLLM")
_Output = TypeVar("_Output")

_LOOK_UP = 60.0
"""Seconds that the thread which hands news on sleeps at most."""


class AsyncLLM:
    """A model that answers many requests at a time, in vLLM's manner.

        async with AsyncLLM("/path/to/model.gguf") as llm:
            async for output in llm.generate("The sky is"):
                print(output.text)

    The engine runs on a thread of its own, which Python's other threads do not hold up; a second one hands its news on.
    A consumer that does not read holds nobody else up, and finds all of its answer when it reads. Prompts are encoded
    on the caller's thread; `stats` and `shutdown` wait for the step under way.

    Works as a context manager, with `async with` and with `with`; it is shut down at the end of the block.

    Args:
        model: As `LLM` takes it.
        max_queued: The most requests that may be unanswered at a time; None for any number.
        **kwargs: The options of `LLM`; `scheduling_policy` is "mixed" unless it is given.

    Raises:
        Exception: What `LLM` raises.
    """

    def __init__(self, model: str | os.PathLike[str], *, max_queued: int | None = None, **kwargs: Any) -> None:
        if max_queued is not None and (isinstance(max_queued, bool) or not isinstance(max_queued, int)):
            raise TypeError(f"max_queued must be an integer or None, not {type(max_queued).__name__}")
        if max_queued is not None and max_queued < 1:
            raise ValueError(f"max_queued must be at least 1, got {max_queued}")
        if kwargs.get("scheduling_policy") is None:
            kwargs["scheduling_policy"] = "mixed"
        self._llm = LLM(model, **kwargs)
        self._max_queued = max_queued
        engine = self._llm._engine
        self._requests = _Requests(engine.hub())
        self._threads = [
            threading.Thread(target=_drive, args=(engine,), name="nanovllm-engine", daemon=True),
            threading.Thread(target=self._requests.hand_on, name="nanovllm-news", daemon=True),
        ]
        # Threads have no reference to this object, so that it goes with its last user's.
        self._finalizer = weakref.finalize(self, _shut_down, engine, self._requests, self._threads, os.getpid())
        for thread in self._threads:
            thread.start()

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._llm.tokenizer

    async def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer, as vLLM's callers ask for it."""
        return self._llm.tokenizer

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        skip_special_tokens: bool = False,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Answers a prompt; closing the generator drops the request.

        Args:
            prompt: A text or token ids.
            sampling_params: How it samples. Its `output_kind` says what each output has: by default the answer so far.
            request_id: A name to abort it by, which no other unanswered request has; made up if it is None.
            skip_special_tokens: Leave special tokens out of `text`, if the params do not say.
            priority: The lower, the sooner it is computed.

        Yields:
            An output whenever there is something new; of a slow reader's several are one. `outputs` has the answers
            that have something new, which with `n` above 1 need not be all. The last is `finished`, with the finish
            reason `abort` if somebody else has dropped the request.

        Raises:
            QueueFullError: `max_queued` requests are not answered yet.
            ValueError: There is an unanswered request of this id; otherwise as `LLM.generate`.
            RuntimeError: It was shut down, or the engine failed.
        """
        params = SamplingParams() if sampling_params is None else sampling_params
        name = uuid.uuid4().hex if request_id is None else request_id
        state = self._llm._one_request(prompt, params, skip_special_tokens, name, priority)
        kind = getattr(params, "output_kind", None) or RequestOutputKind.CUMULATIVE
        reader = _Reader(state, lambda: state.take(kind), asyncio.get_running_loop())
        try:
            self._requests.add(reader, self._max_queued, lambda hub: hub.submit([state.queued], skip_special_tokens))
            while True:
                await reader.bell.wait()
                output = reader.take()
                if output is not None:
                    yield output
                if reader.is_done:
                    return
        finally:
            self._requests.drop(reader)

    async def chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        skip_special_tokens: bool = True,
        add_generation_prompt: bool | None = None,
        tools: Sequence[dict[str, Any]] | None = None,
        documents: Sequence[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool = False,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Answers a conversation through the model's chat template, with the options of `LLM.chat` and `generate`."""
        (prompt,) = self._llm._chat_prompts(
            [messages],
            add_generation_prompt,
            tools,
            documents,
            chat_template,
            chat_template_kwargs,
            continue_final_message,
            {},
        )
        outputs = self.generate(
            prompt, sampling_params, request_id, skip_special_tokens=skip_special_tokens, priority=priority
        )
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                yield output

    async def embed(
        self,
        prompt: Prompt,
        request_id: str | None = None,
        *,
        pooling: str = "last",
        normalize: bool = True,
        priority: int = 0,
    ) -> EmbeddingOutput:
        """Embeds a prompt, with the options of `LLM.embed`. Cancelling the task drops the request.

        Raises:
            QueueFullError: `max_queued` requests are not answered yet.
            ValueError: There is an unanswered request of this id; otherwise as `LLM.embed`.
            RuntimeError: It was aborted, or shut down, or the engine failed.
        """
        name = uuid.uuid4().hex if request_id is None else request_id
        state = self._llm._one_embedding(prompt, name, priority)
        reader = _Reader(state, state.take, asyncio.get_running_loop())
        try:
            self._requests.add(reader, self._max_queued, lambda hub: hub.embed([state.queued], pooling, normalize))
            while True:
                await reader.bell.wait()
                output = reader.take()
                if output is not None:
                    return output
        finally:
            self._requests.drop(reader)

    async def abort(self, request_id: str) -> bool:
        """Drops a request by its id, whose reader is told; False if there is no unanswered one of that id."""
        return self._requests.abort(request_id)

    def stats(self) -> dict[str, int]:
        """Counters and the present state, as `LLM.stats` has them."""
        return self._llm.stats()

    def metrics(self) -> Metrics:
        """What the engine has done and how fast, as `LLM.metrics` has it; it waits for nothing."""
        return self._llm.metrics()

    def shutdown(self) -> None:
        """Drops every request and frees the model. Readers get a RuntimeError. Calling it again does nothing."""
        self._finalizer()
        self._llm.exit()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The step under way ends first, which an event loop must not wait for.
        await asyncio.get_running_loop().run_in_executor(None, self.shutdown)

    def __reduce__(self) -> Any:
        raise TypeError(f"{type(self).__name__} cannot be pickled: make one in each process that uses it")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._llm!r}>"


class _Reader(Generic[_Output]):
    """A request whose outputs somebody reads in an event loop; `take` is that of its state."""

    def __init__(
        self,
        state: RequestState | EmbeddingState,
        take: Callable[[], _Output | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.state = state
        self._take = take
        self.loop = loop
        self.bell = asyncio.Event()
        self.is_rung = False
        self.is_done = False
        # A signal handler or a finalizer may come back to it on the thread that has it.
        self._lock = threading.RLock()
        self._error: BaseException | None = None

    def add(self, news: Any) -> None:
        """Takes in what the engine tells, on any thread; whoever calls this rings."""
        with self._lock:
            if isinstance(news, tuple) and isinstance(news[1], Exception):
                self._error = news[1]
                return
            try:
                self.state.add(news)
            except Exception as error:
                self._error = error  # this request's, and nobody else's

    @property
    def has_failed(self) -> bool:
        """Whether an error has ended it."""
        return self._error is not None

    @property
    def is_answered(self) -> bool:
        """Whether the engine has nothing more to tell."""
        with self._lock:
            return self.has_failed or self.state.finished

    def end(self, error: BaseException | None) -> None:
        """Says that nothing more will come: because of an error, which is this reader's own, or of an abort."""
        with self._lock:
            if error is None:
                self.state.abort()
            else:
                self._error = error

    def take(self) -> _Output | None:
        """What is to be handed out now, on the reader's thread."""
        # Before it looks: whoever adds something afterwards rings again.
        self.bell.clear()
        self.is_rung = False
        with self._lock:
            output = self._take()
            if self._error is None or output is not None:
                self.is_done = self._error is None and self.state.finished
                if self._error is not None:
                    self.bell.set()  # once this output has been read
                return output
            error, self._error, self.is_done = self._error, None, True
        try:
            raise error
        finally:
            del error  # the traceback refers to this frame, and must not come back to itself


class _Requests:
    """The requests that are not answered, and the hub that has them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._by_id: dict[str, _Reader[Any]] = {}
        self._by_sequence: dict[int, _Reader[Any]] = {}
        self._failure: str | None = None

    def add(self, reader: _Reader[Any], max_queued: int | None, submit: Callable[[Hub], None]) -> None:
        """Hands a request in, by what `submit` does with the hub."""
        if self._is_forked():  # a thread that does not exist here may have the lock
            raise RuntimeError("the engine does not survive fork(); make what uses it in the child")
        state = reader.state
        with self._lock:
            if self._failure is not None:
                raise RuntimeError(self._failure)
            if max_queued is not None and len(self._by_id) >= max_queued:
                raise QueueFullError(f"max_queued is {max_queued}, and as many requests are not answered yet")
            if state.request_id in self._by_id:
                raise ValueError(f"request_id {state.request_id!r} is that of another request")
            if self._by_sequence.keys() & state.seq_ids:
                raise ValueError("Sequence.counter has given the ids of sequences that are not answered")
            self._by_id[state.request_id] = reader
            self._by_sequence.update(dict.fromkeys(state.seq_ids, reader))
        try:
            submit(self._hub)
        except BaseException:
            self._forget(reader)
            raise
        with self._lock:
            is_wanted = self._by_id.get(state.request_id) is reader
        if not is_wanted:  # it was aborted before the hub had it
            self._drop_sequences(reader)

    def drop(self, reader: _Reader[Any]) -> None:
        """Drops a request if it is not answered; nothing waits for the engine."""
        if not self._is_forked() and self._forget(reader) and not reader.is_done:
            self._drop_sequences(reader)

    def abort(self, request_id: str) -> bool:
        """Drops a request by its id, and tells its reader."""
        if self._is_forked():
            return False
        with self._lock:
            reader = self._by_id.get(request_id)
            if reader is None or not self._forget(reader):
                return False
        self._drop_sequences(reader)
        reader.end(None)
        _ring([reader])
        return True

    def close(self, reason: str) -> None:
        """Ends every request with an error."""
        if self._is_forked():
            return
        with self._lock:
            self._failure = self._failure or reason
            readers = list(self._by_id.values())
            self._by_id.clear()
            self._by_sequence.clear()
        with contextlib.suppress(RuntimeError):
            self._hub.close()
        for reader in readers:
            reader.end(RuntimeError(reason))
        _ring(readers)

    def hand_on(self) -> None:
        """Hands the engine's news to their readers until the hub is closed: what the second thread does."""
        try:
            while True:
                self._tell(self._hub.wait(_LOOK_UP))
        except RuntimeError as error:  # it was closed, or the engine has failed
            self.close(str(error))
        except BaseException as error:
            self.close(f"{type(error).__name__}: {error}")
            raise

    def _tell(self, events: list[Any]) -> None:
        """Hands these on; no variable outlives it that refers to a reader or an error."""
        told: dict[int, _Reader[Any]] = {}
        try:
            for news in events:
                reader = self._by_sequence.get(news[0] if isinstance(news, tuple) else news.seq_id)
                if reader is None:
                    continue
                told[id(reader)] = reader
                reader.add(news)
                if reader.is_answered:  # whether or not anybody reads it
                    self._forget(reader)
                    if reader.has_failed:
                        self._drop_sequences(reader)  # the other answers to its prompt
        finally:
            for reader in _ring(list(told.values())):
                self.drop(reader)

    def _forget(self, reader: _Reader[Any]) -> bool:
        """Takes a request out; False where it is not there, though perhaps another of its id."""
        with self._lock:
            for seq_id in reader.state.seq_ids:
                if self._by_sequence.get(seq_id) is reader:
                    del self._by_sequence[seq_id]
            if self._by_id.get(reader.state.request_id) is not reader:
                return False
            del self._by_id[reader.state.request_id]
            return True

    def _drop_sequences(self, reader: _Reader[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the engine has failed
            self._hub.drop_requests(reader.state.seq_ids)

    def _is_forked(self) -> bool:
        return os.getpid() != self._process


def _ring(readers: Sequence[_Reader[Any]]) -> list[_Reader[Any]]:
    """Wakes readers, with one call for each event loop. Returns those whose loop was closed: nobody reads them."""
    loops: dict[asyncio.AbstractEventLoop, list[_Reader[Any]]] = {}
    gone = []
    for reader in readers:
        if reader.loop.is_closed():  # perhaps with an earlier call that it never made
            gone.append(reader)
        elif not reader.is_rung:
            reader.is_rung = True
            loops.setdefault(reader.loop, []).append(reader)
    for loop, woken in loops.items():
        if not _call_in(loop, [reader.bell for reader in woken]):
            gone += woken
    return gone


def _call_in(loop: asyncio.AbstractEventLoop, bells: list[asyncio.Event]) -> bool:
    """Has a loop ring these; False where it was closed."""
    try:
        loop.call_soon_threadsafe(_set_all, bells)
    except RuntimeError:
        return False
    return True


def _set_all(bells: list[asyncio.Event]) -> None:
    for bell in bells:
        bell.set()


def _drive(engine: Engine) -> None:
    # What ends it other than `end` is told to every request too.
    with contextlib.suppress(RuntimeError):
        engine.drive()


def _shut_down(engine: Engine, requests: _Requests, threads: list[threading.Thread], process: int) -> None:
    if os.getpid() != process:
        return  # a forked child has no such threads
    requests.close("the engine was shut down")
    with contextlib.suppress(RuntimeError):
        engine.end()
    for thread in threads:
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join()
