"""What an engine has done and how fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations in seconds, counted by how long they are."""

    bounds: tuple[float, ...]
    """Upper bounds, ascending; the last is infinity."""
    counts: tuple[int, ...]
    """How many are at most each of the bounds."""
    sum: float
    """The sum of all."""

    @property
    def count(self) -> int:
        """How many there are."""
        return self.counts[-1]

    @property
    def mean(self) -> float:
        """Their mean; NaN where there is none."""
        return self.sum / self.count if self.count else math.nan

    def quantile(self, q: float) -> float:
        """About the duration that a share `q` of them does not exceed; NaN where there is none.

        Between two bounds they are taken to lie evenly, as Prometheus takes them; above the last but one it is that.

        Raises:
            ValueError: `q` is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be between 0 and 1, got {q}")
        if not self.count:
            return math.nan
        rank = q * self.count
        lower, before = 0.0, 0
        for upper, count in zip(self.bounds, self.counts, strict=True):
            if count >= rank and count > before:
                if math.isinf(upper):
                    return lower
                return lower + (upper - lower) * (rank - before) / (count - before)
            lower, before = upper, count
        return lower


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an engine has done since it was made, as of its last step."""

    num_requests: int
    """Sequences that it has taken, one for each answer to a prompt."""
    num_stopped: int
    """Those that ended with what they stop at, or were embedded."""
    num_cut_off: int
    """Those that ended at a limit."""
    num_aborted: int
    """Those that somebody dropped."""
    num_steps: int
    """Steps that computed something."""
    num_prefilled_tokens: int
    """Tokens of prompts computed."""
    num_cached_tokens: int
    """Tokens of prompts that the prefix cache spared, or another answer to the same prompt."""
    num_generated_tokens: int
    """Tokens chosen."""
    num_preemptions: int
    """Times a sequence gave up its blocks to another."""
    num_waiting: int
    """Sequences that wait now."""
    num_running: int
    """Sequences that run now."""
    num_free_blocks: int
    """Blocks of the KV cache that are free now."""
    num_kvcache_blocks: int
    """Blocks of the KV cache in all."""
    time_to_first_token: Histogram
    """From when a request was handed in to its first token."""
    inter_token_latency: Histogram
    """From a token to the next one of the same answer."""
    request_latency: Histogram
    """From when a request was handed in to its end; those that were dropped do not count."""

    @property
    def kv_cache_usage(self) -> float:
        """The share of the KV cache's blocks that is in use."""
        return 1 - self.num_free_blocks / self.num_kvcache_blocks

    @property
    def prefix_cache_hit_rate(self) -> float:
        """The share of the tokens of prompts that were not computed; NaN before there was one."""
        total = self.num_cached_tokens + self.num_prefilled_tokens
        return self.num_cached_tokens / total if total else math.nan


def metrics(told: dict[str, Any]) -> Metrics:
    """What `Engine.metrics` tells."""
    bounds = (*told.pop("bounds"), math.inf)
    for name in ("time_to_first_token", "inter_token_latency", "request_latency"):
        total, counts = told[name]
        told[name] = Histogram(bounds, tuple(counts), total)
    return Metrics(**told)
