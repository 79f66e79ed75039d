"""nano-vLLM's API on a Rust engine: `from nanovllm import LLM, SamplingParams`."""

from nanovllm._core import __version__
from nanovllm.async_llm import AsyncLLM
from nanovllm.llm import LLM
from nanovllm.outputs import CompletionOutput, EmbeddingOutput, Logprob, RequestOutput, ScoreOutput
from nanovllm.sampling_params import RequestOutputKind, SamplingParams

__all__ = [
    "LLM",
    "AsyncLLM",
    "CompletionOutput",
    "EmbeddingOutput",
    "Logprob",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "ScoreOutput",
    "__version__",
]
