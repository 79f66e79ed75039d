"""A request for an embedding while it is computed."""

from __future__ import annotations

from collections.abc import Sequence

from nanovllm._core import FinishedSequence
from nanovllm.engine.sequence import Sequence as EngineSequence
from nanovllm.outputs import EmbeddingOutput, embedding_output

QueuedEmbedding = tuple[int, Sequence[int], int]
"""A sequence id, the prompt, and its priority."""


class EmbeddingState:
    """A prompt that is embedded.

    Args:
        prompt: Its text, if it was one.
        token_ids: Its tokens.
        request_id: Its name; that of its sequence by default.
        priority: The lower, the sooner it is computed.
    """

    def __init__(
        self, prompt: str | None, token_ids: Sequence[int], request_id: str | None = None, priority: int = 0
    ) -> None:
        self.prompt = prompt
        self.priority = priority
        self.token_ids = list(token_ids) if isinstance(token_ids, list) else token_ids  # the caller's may grow
        self.seq_ids = [next(EngineSequence.counter)]
        self.request_id = str(self.seq_ids[0]) if request_id is None else request_id
        self.finished = False
        self._sequence: FinishedSequence | None = None

    @property
    def queued(self) -> QueuedEmbedding:
        """What the engine is given of it."""
        return self.seq_ids[0], self.token_ids, self.priority

    def add(self, news: FinishedSequence) -> None:
        """Takes in what the engine tells of it: its end."""
        self._sequence, self.finished = news, True

    def abort(self) -> None:
        """Ends it without a result."""
        self.finished = True

    def take(self) -> EmbeddingOutput | None:
        """Its result, None before it has one.

        Raises:
            RuntimeError: It was aborted, or somebody has computed a part of it by hand.
        """
        if not self.finished:
            return None
        embedding = None if self._sequence is None else self._sequence.embedding
        if self._sequence is None or embedding is None:
            raise RuntimeError(f"request {self.request_id} was aborted before its embedding was complete")
        return embedding_output(self.request_id, self.prompt, self.token_ids, self._sequence, embedding)
