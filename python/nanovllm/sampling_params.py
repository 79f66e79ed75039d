"""Sampling parameters say how the tokens of one request are chosen, and when it ends."""

from dataclasses import dataclass

from nanovllm import _core

_DEFAULT = _core.sampling_defaults()
"""The defaults, which the engine defines for its callers in Rust too."""


@dataclass(slots=True)
class SamplingParams:
    """Sampling options of one request, checked when made and again when the request is added.

    Args:
        temperature: Logits are divided by it before a token is drawn; 0 takes the likeliest token (greedy).
        max_tokens: The most tokens to generate, at least 1.
        ignore_eos: Generate `max_tokens` tokens, whether or not the model ends its answer before.
        seed: Fixes the draws of this request, 0 to 2**64 - 1; None derives them from the engine's seed and the number
            of requests that it took before this one.

    Raises:
        ValueError: For a value outside these limits, naming the field and the limit.
        TypeError: For a value of another type.
    """

    temperature: float = _DEFAULT["temperature"]
    max_tokens: int = _DEFAULT["max_tokens"]
    ignore_eos: bool = _DEFAULT["ignore_eos"]
    seed: int | None = _DEFAULT["seed"]

    def __post_init__(self) -> None:
        _core.check_sampling_params(self)
