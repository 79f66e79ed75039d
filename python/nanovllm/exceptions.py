"""What can go wrong with a model; each is also the built-in exception a caller would expect.

Bad requests (an empty prompt, a token id out of range, a temperature that is not a number) are plain `ValueError`,
memory that cannot be had is `MemoryError`, and Ctrl-C is `KeyboardInterrupt`.
"""

__all__ = [
    "ChatTemplateError",
    "ModelFormatError",
    "ModelNotFoundError",
    "NanoVLLMError",
    "PreconditionError",
    "QueueFullError",
    "UnsupportedModelError",
]


class NanoVLLMError(Exception):
    """Base of the package's own exceptions."""


class ModelNotFoundError(NanoVLLMError, FileNotFoundError):
    """The model is neither on this machine nor could it be downloaded."""


class ModelFormatError(NanoVLLMError, ValueError):
    """A file of the model is damaged, truncated or not what its name says."""


class UnsupportedModelError(NanoVLLMError, ValueError):
    """The model is well formed, but its architecture, a tensor type or a feature is not supported."""


class PreconditionError(NanoVLLMError, ValueError, AssertionError):
    """A call by hand on a sequence, block manager or scheduler that is not in the state for it.

    Where nano-vLLM asserts this is its AssertionError; where it would go on with broken books there is this error too.
    """


class QueueFullError(NanoVLLMError, RuntimeError):
    """As many requests as `AsyncLLM` takes are not answered yet."""


class ChatTemplateError(NanoVLLMError, ValueError):
    """The chat template is missing or failed, perhaps on purpose: templates may refuse a conversation."""
