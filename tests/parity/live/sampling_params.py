"""nano-vLLM's `sampling_params.py`."""

from parity import standins

SamplingParams = standins.loaded()["sampling_params"].SamplingParams
