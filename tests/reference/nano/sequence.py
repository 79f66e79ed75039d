"""`engine/sequence.py`: one request's tokens, and where its keys and values are."""

from __future__ import annotations

import itertools
import pickle
from enum import Enum
from typing import Any, ClassVar

from .sampling_params import SamplingParams

SequenceStatus = Enum("SequenceStatus", ["WAITING", "RUNNING", "FINISHED"])


class Sequence:
    """Prompt and completion. What follows from the tokens is a property that counts them."""

    block_size: ClassVar[int] = 256
    counter: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self, token_ids: list[int], sampling_params: SamplingParams | None = None) -> None:
        params = sampling_params or SamplingParams()
        self.last_token = token_ids[-1]  # IndexError for an empty prompt, before an id is used up
        self.seq_id = next(Sequence.counter)
        self.status = SequenceStatus.WAITING
        self.token_ids = list(token_ids)
        self.num_tokens = self.num_prompt_tokens = len(token_ids)
        self.num_cached_tokens = 0
        """Tokens whose keys and values are in the cache."""
        self.num_scheduled_tokens = 0
        """Tokens that the step under way computes after those."""
        self.is_prefill = True
        self.block_table: list[int] = []
        self.temperature, self.max_tokens, self.ignore_eos = params.temperature, params.max_tokens, params.ignore_eos

    def __len__(self) -> int:
        return self.num_tokens

    def __getitem__(self, key: Any) -> Any:
        return self.token_ids[key]

    @property
    def is_finished(self) -> bool:
        """Whether it has ended."""
        return self.status is SequenceStatus.FINISHED

    @property
    def prompt_token_ids(self) -> list[int]:
        """The tokens of the prompt."""
        return self.token_ids[: self.num_prompt_tokens]

    @property
    def completion_token_ids(self) -> list[int]:
        """The tokens generated so far."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_completion_tokens(self) -> int:
        """How many tokens were generated so far."""
        return self.num_tokens - self.num_prompt_tokens

    @property
    def num_blocks(self) -> int:
        """Blocks that its tokens fill, the last one perhaps in part."""
        return -(-self.num_tokens // self.block_size)

    @property
    def last_block_num_tokens(self) -> int:
        """Tokens in the last of its blocks, 1 to `block_size`."""
        return (self.num_tokens - 1) % self.block_size + 1

    def block(self, i: int) -> list[int]:
        """The tokens of block `i`."""
        if not 0 <= i < self.num_blocks:
            raise AssertionError("no such block")
        return self.token_ids[i * self.block_size :][: self.block_size]

    def append_token(self, token_id: int) -> None:
        """Appends a token to the completion."""
        self.token_ids.append(token_id)
        self.last_token = token_id
        self.num_tokens += 1

    def __getstate__(self) -> tuple[Any, ...]:
        """What another process needs to run a step: of a decoding sequence the newest token is enough."""
        tokens = self.token_ids if self.is_prefill else self.last_token
        counts = (self.num_tokens, self.num_prompt_tokens, self.num_cached_tokens, self.num_scheduled_tokens)
        return (*counts, self.block_table, tokens)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *counts, self.block_table, tokens = state
        self.num_tokens, self.num_prompt_tokens, self.num_cached_tokens, self.num_scheduled_tokens = counts
        self.token_ids = tokens if isinstance(tokens, list) else []
        self.last_token = tokens[-1] if isinstance(tokens, list) else tokens


def through_pickle(seq: Sequence) -> Sequence:
    """The sequence that another process makes of a pickle."""
    return pickle.loads(pickle.dumps(seq))  # noqa: S301 - our own bytes
