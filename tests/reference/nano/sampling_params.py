"""`sampling_params.py`: how one request samples."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SamplingParams:
    """Temperature, and what ends the answer besides the end-of-sequence token."""

    temperature: float = 1.0
    max_tokens: int = 64
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 1e-10:
            raise AssertionError("nano-vLLM does not sample greedily")
