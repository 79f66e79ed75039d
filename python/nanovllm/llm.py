"""The class that users make engines with."""

from nanovllm.engine.llm_engine import LLMEngine


class LLM(LLMEngine):
    """A model ready to generate."""

    __doc__ = LLMEngine.__doc__  # with every option
