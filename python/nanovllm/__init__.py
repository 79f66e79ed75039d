"""nano-vLLM's API on a Rust engine: `from nanovllm import LLM, SamplingParams`."""

from nanovllm._core import __version__
from nanovllm.llm import LLM
from nanovllm.sampling_params import SamplingParams

__all__ = ["LLM", "SamplingParams", "__version__"]
