"""The workload both engines run, and what they measure: nano-vLLM's bench.py scaled to a CPU."""

from dataclasses import dataclass
from random import Random

PREFILL_TOKENS = 512
DECODE_TOKENS = 128
NUM_SEQS = 32
LENGTHS = (100, 512)
"""Inputs and outputs of the workload are uniform in this range."""


@dataclass
class Measured:
    """What one engine did in one round."""

    decode_tok_s: float
    """Tokens a second at batch 1, after a prompt of 16 tokens."""
    prefill_tok_s: float
    """Prompt tokens a second, one prompt of PREFILL_TOKENS."""
    workload_tok_s: float
    """Generated tokens a second over the whole workload, prefill included."""
    peak_memory_mb: float
    """Peak resident memory of the process."""


def prompt(length: int, vocab_size: int, seed: int) -> list[int]:
    """Random token ids: the cost of a token does not depend on which it is."""
    random = Random(seed)
    return [random.randrange(100, min(10000, vocab_size)) for _ in range(length)]


def workload(vocab_size: int) -> list[tuple[list[int], int]]:
    """Prompts and output lengths, from seed 0."""
    random = Random(0)
    return [(prompt(random.randint(*LENGTHS), vocab_size, seed=i), random.randint(*LENGTHS)) for i in range(NUM_SEQS)]


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MB (0 where the system does not tell)."""
    try:
        import resource
        import sys
    except ImportError:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
