"""How to choose the tokens of one request."""

from dataclasses import dataclass

from nanovllm import _core


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

    temperature: float = 1.0
    max_tokens: int = 64
    ignore_eos: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        _core.check_sampling_params(self.temperature, self.max_tokens, self.ignore_eos, self.seed)
