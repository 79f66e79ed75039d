"""The class that users make engines with."""

from nanovllm.engine.llm_engine import LLMEngine


class LLM(LLMEngine):
    """A model ready to generate. See `LLMEngine` for the arguments and methods."""
