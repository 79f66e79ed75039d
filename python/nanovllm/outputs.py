"""What `generate` answers: dicts as nano-vLLM's, whose keys are attributes too, under vLLM's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nanovllm._core import FinishedSequence

TokenLogprobs = dict[int, "Logprob"]
"""How likely some tokens were at one place of a text, by id: the one that stands there, then the likeliest ones."""

Listed = tuple[float, int, list[tuple[int, float]]]
"""As the engine gives them: those of the token that stands there and its rank, and of the likeliest ones."""


@dataclass(frozen=True, slots=True)
class Logprob:
    """How likely a token was, by the model's own logits: no sampling option changes it."""

    logprob: float
    """Natural logarithm of the probability."""
    rank: int
    """Its place among all tokens, from 1."""
    decoded_token: str | None
    """Its text; None without `SamplingParams.detokenize`."""


class _Record(dict[str, Any]):
    """A dict whose keys are attributes.

    What is `also` there is found by name, but counts for nothing when two of them are compared: the same answer may be
    given to another request, at another time.
    """

    _also: Mapping[str, Any] = MappingProxyType({})

    def __missing__(self, key: str) -> Any:
        return self._also[key]

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}", name=name, obj=self) from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self, *self._also]


class CompletionOutput(_Record):
    """One answer.

    Attributes:
        index: Which of the prompt's answers it is, from 0.
        text: The decoded answer, up to a stop string; with special tokens unless they are skipped.
        token_ids: The generated tokens, the one that ended the answer included.
        finish_reason: `stop` at an end-of-sequence token or what the request stops at, `length` at a limit, `abort`
            where somebody dropped it; None in a stream before it is complete.
        stop_reason: The token id or the string of the request that ended the answer, else None.
        logprobs: Of each token a dict of `Logprob` by token id, where `SamplingParams.logprobs` asks for it; else None.
        cumulative_logprob: The sum of the tokens' log-probabilities; None without `logprobs`.
    """


class RequestOutput(_Record):
    """The answer to one prompt, or each of several to it in `outputs`.

    Its keys are those of the first answer (see `CompletionOutput`, but for `index`) and, of the request, those below.
    `request_id`, `prompt` and `timing` do not count when two answers are compared.

    Attributes:
        outputs: The answers, `SamplingParams.n` of them; in a stream those that have something new.
        request_id: The request's name; that of a call to `generate` is a number.
        prompt: The prompt's text; None where token ids were given.
        prompt_token_ids: Its tokens.
        prompt_logprobs: None for the first token of the prompt, and of every other a dict of `Logprob` by token id,
            where `SamplingParams.prompt_logprobs` asks for it, once the first answer is complete; else None.
        num_prompt_tokens: Tokens of the prompt.
        num_cached_tokens: Tokens of the prompt found in the prefix cache; None in a stream before the first answer is
            complete.
        timing: Seconds from when it was queued to its first token (`first_token`) and to its end (`total`);
            None in a stream before an answer is complete.
        finished: Whether all answers are complete.
    """


class ScoreOutput(_Record):
    """How likely a text is.

    Attributes:
        token_ids: Its tokens, those of what is before it included.
        logprobs: Of each token the natural logarithm of its probability after those before it; None for those that are
            not scored, of which the first is one.
        logprob: The sum of these: that of the text's probability.
    """


class EmbeddingOutput(_Record):
    """The embedding of a prompt.

    `request_id`, `prompt`, `timing` and `outputs` are there too, and do not count when two of them are compared.

    Attributes:
        embedding: A numpy array, float32 `[hidden_size]`.
        prompt_token_ids: The prompt's tokens.
        num_cached_tokens: Those found in the prefix cache.
        outputs: The same embedding as `output.outputs.embedding`, where vLLM has it.
        request_id: The request's name; that of a call to `embed` is a number.
        prompt: The prompt's text; None where token ids were given.
        timing: Seconds from when it was queued to its end (`total`).
    """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EmbeddingOutput):
            return NotImplemented
        same = np.array_equal(self["embedding"], other["embedding"])
        return same and all(self[key] == other[key] for key in self if key != "embedding")

    __hash__ = None  # type: ignore[assignment]


def embedding_output(
    request_id: str,
    prompt: str | None,
    prompt_token_ids: Sequence[int],
    sequence: FinishedSequence,
    embedding: np.ndarray,
) -> EmbeddingOutput:
    """What answers a prompt that was embedded."""
    output = EmbeddingOutput(
        embedding=embedding,
        prompt_token_ids=list(prompt_token_ids),
        num_cached_tokens=sequence.num_cached_tokens,
    )
    _, total = sequence.timing
    output._also = {
        "request_id": request_id,
        "prompt": prompt,
        "timing": {"total": total},
        "outputs": SimpleNamespace(embedding=embedding),
    }
    return output


def request_output(
    request_id: str,
    prompt: str | None,
    prompt_token_ids: Sequence[int],
    prompt_logprobs: list[TokenLogprobs | None] | None,
    sequences: Sequence[FinishedSequence | None],
    outputs: list[CompletionOutput],
    finished: bool,
) -> RequestOutput:
    """What answers to a prompt make together; `sequences` are all of them, None for one that has not ended."""
    first = {key: value for key, value in outputs[0].items() if key != "index"}
    output = RequestOutput(
        **first,
        outputs=outputs,
        prompt_token_ids=list(prompt_token_ids),
        prompt_logprobs=prompt_logprobs,
        num_prompt_tokens=len(prompt_token_ids),
        num_cached_tokens=None if sequences[0] is None else sequences[0].num_cached_tokens,
        finished=finished,
    )
    times = [seq.timing for seq in sequences if seq is not None]
    timing = None
    if times:
        timing = {"first_token": min(first for first, _ in times), "total": max(total for _, total in times)}
    output._also = {"request_id": request_id, "prompt": prompt, "timing": timing}
    return output


def of_tokens(
    token_ids: Sequence[int], listed: Sequence[Listed], decode: Callable[[int], str | None]
) -> list[TokenLogprobs]:
    """How likely each token was, in vLLM's form: the token itself first, then the likeliest ones."""
    places = []
    for token_id, (logprob, rank, top) in zip(token_ids, listed, strict=True):
        place = {token_id: Logprob(logprob, rank, decode(token_id))}
        for i, (other, other_logprob) in enumerate(top):
            place.setdefault(other, Logprob(other_logprob, i + 1, decode(other)))
        places.append(place)
    return places
