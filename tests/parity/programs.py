"""Drawn programs for a scheduler: its limits, what arrives when, and what is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from hypothesis import strategies as st

EOS = 2
MAX_STEPS = 200


@dataclass(frozen=True)
class Request:
    """A prompt, and the step before which it is added."""

    at: int
    token_ids: list[int]
    max_tokens: int
    ignore_eos: bool
    temperature: float


@dataclass(frozen=True)
class Program:
    """Everything that decides what a scheduler does."""

    block_size: int
    num_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    requests: list[Request]
    samples: list[int]
    """The tokens sampled, over and over, by position."""
    shift: int
    """How far neighbouring sequences are apart in them: at 0 equal prompts stay equal."""

    def config(self, **extra: object) -> SimpleNamespace:
        """What a scheduler is made from."""
        return SimpleNamespace(
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            eos=EOS,
            kvcache_block_size=self.block_size,
            num_kvcache_blocks=self.num_blocks,
            **extra,
        )

    def sample(self, seq_id: int, num_tokens: int) -> int:
        """The token that follows a sequence of this length."""
        return self.samples[(num_tokens + seq_id * self.shift) % len(self.samples)]


def near_multiples(unit: int, most: int) -> st.SearchStrategy[int]:
    """Integers from 0, often next to a multiple of `unit`: where blocks begin and end."""
    near = st.builds(lambda n, d: max(0, n * unit + d), st.integers(0, most // unit), st.integers(-1, 1))
    return near | st.integers(0, most)


def token_lists(block_size: int) -> st.SearchStrategy[list[int]]:
    """Prompts: the start of one of three texts, up to three blocks of it, and a few tokens of their own."""

    def build(text: int, length: int, own: list[int]) -> list[int]:
        start = [(text + i * i) % 13 for i in range(length)]
        return [*start, *own] or [0]

    own = st.just([]) | st.lists(st.integers(0, 12), max_size=3)
    return st.builds(build, st.integers(0, 2), near_multiples(block_size, 3 * block_size), own)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Block sizes from 2 to 256, pools that suffice and pools that do not, steps with room for a few tokens or all."""
    block_size = draw(st.integers(2, 9) | st.sampled_from([16, 31, 64, 256]))
    request = st.builds(
        Request,
        at=st.just(0) | st.integers(0, 12),
        token_ids=token_lists(block_size),
        max_tokens=st.integers(1, 24) | st.integers(1, min(3 * block_size, 40)),
        ignore_eos=st.booleans(),
        temperature=st.sampled_from([0.5, 1.0]),
    )
    return Program(
        block_size=block_size,
        num_blocks=draw(st.integers(3, 24) | st.integers(1, 8)),
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=max(block_size // 8, draw(near_multiples(block_size, 6 * block_size)), 1),
        requests=sorted(draw(st.lists(request, min_size=draw(st.integers(1, 6)), max_size=8)), key=lambda r: r.at),
        samples=draw(st.lists(st.integers(0, 6), min_size=1, max_size=8)),
        shift=draw(st.integers(0, 2)),
    )
