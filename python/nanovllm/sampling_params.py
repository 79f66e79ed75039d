"""How to choose the tokens of one request."""

from dataclasses import dataclass

from nanovllm import _core

_DEFAULT = _core.sampling_defaults()
"""The engine's own defaults, which have no other place."""


@dataclass(slots=True)
class SamplingParams:
    """Sampling options of one request, checked when made and again when the request is added.

    Args:
        temperature: Logits are divided by it before a token is drawn; 0 takes the likeliest token (greedy).
        max_tokens: Tokens to generate at most, at least 1.
        ignore_eos: Generate `max_tokens` tokens whatever the model says.
        seed: Fixes the draw of this request; None takes it from the engine's seed and the request's number.

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
