"""A request while it is answered: what its sequences have brought so far, and what of it was handed out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any

from nanovllm._core import FinishedSequence
from nanovllm.engine.sequence import Sequence as EngineSequence
from nanovllm.outputs import CompletionOutput, Listed, RequestOutput, TokenLogprobs, of_tokens, request_output
from nanovllm.sampling_params import RequestOutputKind
from nanovllm.utils.tokenizer import Tokenizer

News = FinishedSequence | tuple[int, list[int], list[Listed], str | None]
"""What the engine tells of a sequence: its end, or its new tokens and their text."""

QueuedRequest = tuple[list[int], Sequence[int], Any, int]
"""A sequence id for each answer, the prompt, how it samples, and its priority."""


class _Answer:
    """One answer, so far."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.token_ids: list[int] = []
        self.text = ""
        self.listed: list[Listed] = []  # how likely its tokens were, where that is asked for
        self.places: list[TokenLogprobs] = []  # the same as it is handed out, so far
        self.cumulative_logprob = 0.0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.sequence: FinishedSequence | None = None
        self.is_new = False  # there is something that was not handed out
        self.sent_tokens = self.sent_text = 0


class RequestState:
    """A request and its answers so far.

    Args:
        prompt: Its text, if it was one.
        token_ids: Its tokens.
        params: How it samples.
        tokenizer: Makes text of tokens.
        skip_special_tokens: Whether text leaves special tokens out, if the params do not say.
        request_id: Its name; that of its first sequence by default.
        priority: The lower, the sooner it is computed.
    """

    def __init__(
        self,
        prompt: str | None,
        token_ids: Sequence[int],
        params: Any,
        tokenizer: Tokenizer,
        skip_special_tokens: bool,
        request_id: str | None = None,
        priority: int = 0,
    ) -> None:
        self.prompt = prompt
        self.priority = priority
        self.token_ids = list(token_ids) if isinstance(token_ids, list) else token_ids  # the caller's may grow
        self.params = params
        self._tokenizer = tokenizer
        own = getattr(params, "skip_special_tokens", None)
        self._skip = skip_special_tokens if own is None else own
        self._includes_stop = getattr(params, "include_stop_str_in_output", False)
        self._detokenizes = getattr(params, "detokenize", True)
        self._has_logprobs = getattr(params, "logprobs", None) is not None
        self._has_prompt_logprobs = getattr(params, "prompt_logprobs", None) is not None
        self._prompt_places: list[TokenLogprobs | None] | None = None
        self._answers = {next(EngineSequence.counter): _Answer(i) for i in range(_count(params))}
        self.seq_ids = list(self._answers)
        self.request_id = str(self.seq_ids[0]) if request_id is None else request_id
        self._texts: dict[int, str] = {}

    @property
    def queued(self) -> QueuedRequest:
        """What the engine is given of it."""
        return self.seq_ids, self.token_ids, self.params, self.priority

    @property
    def finished(self) -> bool:
        """Whether all answers are complete."""
        return all(answer.finish_reason is not None for answer in self._answers.values())

    def add(self, news: News) -> None:
        """Takes in what the engine tells of one of its sequences."""
        if isinstance(news, tuple):
            seq_id, token_ids, listed, text = news
            answer = self._answers[seq_id]
            answer.token_ids += token_ids
            answer.text += text or ""
            self._list(answer, listed)
        else:
            answer = self._answers[news.seq_id]
            was_streamed = bool(answer.token_ids)
            answer.sequence, answer.finish_reason, answer.stop_reason = news, news.finish_reason, news.stop_reason
            answer.token_ids = news.token_ids
            self._list(answer, news.logprobs[len(answer.listed) :] if self._has_logprobs else [])
            if self._detokenizes:
                if news.text is None and not was_streamed:
                    is_cut = isinstance(news.stop_reason, int) and not self._includes_stop
                    answer.text = self._tokenizer.decode(news.token_ids[: -1 if is_cut else None], self._skip)
                else:
                    answer.text += news.text or ""
        answer.is_new = True

    def abort(self) -> None:
        """Ends the answers that are not complete."""
        for answer in self._answers.values():
            if answer.finish_reason is None:
                answer.finish_reason, answer.is_new = "abort", True

    def take(self, kind: RequestOutputKind) -> RequestOutput | None:
        """What is to be handed out now of the answers that have something new; None where there is nothing."""
        if kind is RequestOutputKind.FINAL_ONLY and not self.finished:
            return None
        answers = [answer for answer in self._answers.values() if answer.is_new]
        if not answers:
            return None
        outputs = [self._completion(answer, kind) for answer in answers]
        sequences = [answer.sequence for answer in self._answers.values()]
        return request_output(
            self.request_id,
            self.prompt,
            self.token_ids,
            self._prompt_logprobs(sequences[0]),
            sequences,
            outputs,
            self.finished,
        )

    def _completion(self, answer: _Answer, kind: RequestOutputKind) -> CompletionOutput:
        begin = (answer.sent_tokens, answer.sent_text) if kind is RequestOutputKind.DELTA else (0, 0)
        answer.is_new = False
        answer.sent_tokens, answer.sent_text = len(answer.token_ids), len(answer.text)
        token_ids = answer.token_ids[begin[0] :]
        # On the reader's thread: of `logprobs=-1` these are many objects.
        known = len(answer.places)
        answer.places += of_tokens(answer.token_ids[known : len(answer.listed)], answer.listed[known:], self._decode)
        return CompletionOutput(
            index=answer.index,
            text=answer.text[begin[1] :],
            token_ids=token_ids,
            finish_reason=answer.finish_reason,
            stop_reason=answer.stop_reason,
            logprobs=answer.places[begin[0] :] if self._has_logprobs else None,
            cumulative_logprob=answer.cumulative_logprob if self._has_logprobs else None,
        )

    def _list(self, answer: _Answer, listed: Sequence[Listed]) -> None:
        """Takes in how likely the answer's newest tokens were."""
        if self._has_logprobs:
            answer.listed += listed
            for logprob, _, _ in listed:  # one by one, so that a stream comes to the same sum
                answer.cumulative_logprob += logprob

    def _prompt_logprobs(self, first: FinishedSequence | None) -> list[TokenLogprobs | None] | None:
        if self._prompt_places is None and self._has_prompt_logprobs and first is not None:
            token_ids = [int(token_id) for token_id in self.token_ids]
            self._prompt_places = [None, *of_tokens(token_ids[1:], first.prompt_logprobs, self._decode)]
        return self._prompt_places

    @property
    def _decode(self) -> Callable[[int], str | None]:
        def decode(token_id: int) -> str | None:
            if not self._detokenizes:
                return None
            if token_id not in self._texts:
                self._texts[token_id] = self._tokenizer.decode([token_id], False)
            return self._texts[token_id]

        return decode


def _count(params: Any) -> int:
    """How many answers; what is no number the engine refuses, by name."""
    try:
        n = index(getattr(params, "n", 1))
    except TypeError:
        return 1
    return n if 0 < n <= 1 << 14 else 1
