"""Sampling parameters say how the tokens of one request are chosen, and when it ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from nanovllm import _core

_DEFAULT = _core.sampling_defaults()
"""The defaults, which the engine defines for its callers in Rust too."""


class RequestOutputKind(Enum):
    """What each output of a stream has, under vLLM's names."""

    CUMULATIVE = 0
    """The whole answer so far."""
    DELTA = 1
    """What is new since the output before."""
    FINAL_ONLY = 2
    """The whole answer, in one output at the end."""


@dataclass(slots=True)
class SamplingParams:
    """Sampling options of one request, checked when made and again when the request is added.

    Fields and their meanings are vLLM's; the first three and their defaults are nano-vLLM's.

    Logits are changed in this order: `logit_bias`, `bad_words` and `min_tokens`; the three penalties;
    `allowed_token_ids`. Then `temperature` divides them, and of the tokens in the order of their logits `min_p`,
    `top_k` and `top_p` keep the first, each of what the one before has left.

    Args:
        temperature: Logits are divided by it before a token is drawn; 0 takes the likeliest token (greedy).
        max_tokens: The most tokens to generate, at least 1; None for as many as the model has room for.
        ignore_eos: Generate `max_tokens` tokens, whether or not the model ends its answer before.
        seed: Fixes the draws of this request, 0 to 2**64 - 1, whatever else runs; None or -1 derives them from the
            engine's seed and the number of requests that it took before this one.
        n: How many answers, 1 to 16384, each with a random stream of its own.
        top_p: The share of the probability, above 0 and at most 1: the fewest likeliest tokens that have it may be
            drawn.
        top_k: How many of the likeliest tokens may be drawn; 0 or -1 for all.
        min_p: How likely a token that may be drawn is at least in proportion to the likeliest, 0 to 1.
        presence_penalty: Subtracted from the logits of tokens that the answer has, -2 to 2.
        frequency_penalty: Subtracted from the logit of a token as often as the answer has it, -2 to 2.
        repetition_penalty: Divides logits above 0 and multiplies those below, of tokens in prompt or answer; above 0.
        stop: Texts that end the answer, one or a list; its text ends before the first.
        stop_token_ids: Tokens that end the answer, besides those that end a sequence.
        include_stop_str_in_output: The text has the stop string that ended it, or the token of `stop_token_ids`.
        bad_words: Texts that the answer must not have, as the runs of tokens that spell them.
        logit_bias: Numbers to add to logits, by token id; minus infinity rules a token out.
        allowed_token_ids: The only tokens that may be chosen; None for all.
        min_tokens: The least tokens to generate: none of them ends the answer.
        logprobs: Say how likely each token of the answer was, and the so many likeliest; -1 for all of the vocabulary.
        prompt_logprobs: The same of the prompt's tokens.
        detokenize: Make text of the tokens; without, `text` is empty.
        skip_special_tokens: Leave special tokens out of the text; None as the method does that is called:
            `generate` keeps them, as nano-vLLM does, and `chat` leaves them out.
        spaces_between_special_tokens: Keep the spaces that some decoders put between special tokens; those of most
            language models put none there.
        output_kind: What each output of a stream has; None as the method does that is called: `LLM.stream` gives what
            is new, `AsyncLLM.generate` the whole answer so far. Other methods give the whole answer at the end.

    Raises:
        ValueError: For a value outside these limits, naming the field and the limit.
        TypeError: For a value of another type.
    """

    temperature: float = _DEFAULT["temperature"]
    max_tokens: int | None = _DEFAULT["max_tokens"]
    ignore_eos: bool = _DEFAULT["ignore_eos"]
    seed: int | None = _DEFAULT["seed"]
    n: int = _DEFAULT["n"]
    top_p: float = _DEFAULT["top_p"]
    top_k: int = _DEFAULT["top_k"]
    min_p: float = _DEFAULT["min_p"]
    presence_penalty: float = _DEFAULT["presence_penalty"]
    frequency_penalty: float = _DEFAULT["frequency_penalty"]
    repetition_penalty: float = _DEFAULT["repetition_penalty"]
    stop: str | Sequence[str] | None = _DEFAULT["stop"]
    stop_token_ids: Sequence[int] | None = _DEFAULT["stop_token_ids"]
    include_stop_str_in_output: bool = _DEFAULT["include_stop_str_in_output"]
    bad_words: Sequence[str] | None = _DEFAULT["bad_words"]
    logit_bias: Mapping[int, float] | None = _DEFAULT["logit_bias"]
    allowed_token_ids: Sequence[int] | None = _DEFAULT["allowed_token_ids"]
    min_tokens: int = _DEFAULT["min_tokens"]
    logprobs: int | None = _DEFAULT["logprobs"]
    prompt_logprobs: int | None = _DEFAULT["prompt_logprobs"]
    detokenize: bool = _DEFAULT["detokenize"]
    skip_special_tokens: bool | None = _DEFAULT["skip_special_tokens"]
    spaces_between_special_tokens: bool = _DEFAULT["spaces_between_special_tokens"]
    output_kind: RequestOutputKind | None = None

    def __post_init__(self) -> None:
        _core.check_sampling_params(self)
        if self.output_kind is not None and not isinstance(self.output_kind, RequestOutputKind):
            raise TypeError(f"output_kind must be a RequestOutputKind or None, not {type(self.output_kind).__name__}")
