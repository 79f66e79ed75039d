"""Steps as nano-vLLM's model runner prepares them, drawn for the suites that run a whole module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st


@dataclass
class Step:
    """One ragged batch over a pool of blocks."""

    context: dict[str, Any]
    """The fields of `Context`."""
    positions: np.ndarray
    num_blocks: int
    """Blocks in the pool; 0 where no module has a cache."""
    block_size: int

    @property
    def rows(self) -> int:
        return len(self.positions)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A fresh prefill with or without caches, a prefill over cached prefixes, or a decode, on scattered blocks."""
    kind = draw(st.sampled_from(["bare", "fresh", "prefix", "decode"]))
    count, block_size = draw(st.integers(1, 3)), draw(st.sampled_from([2, 16, 256]))
    cached = [draw(st.integers(0, 40)) if kind in ("prefix", "decode") else 0 for _ in range(count)]
    new = [1 if kind == "decode" else draw(st.integers(1, 20)) for _ in range(count)]
    total = [c + n for c, n in zip(cached, new, strict=True)]
    needed = [-(-t // block_size) for t in total]
    num_blocks = sum(needed) + draw(st.integers(0, 3))
    pool = draw(st.permutations(range(num_blocks)))
    tables = [[pool.pop() for _ in range(n)] for n in needed]
    positions = [c + i for c, n in zip(cached, new, strict=True) for i in range(n)]
    owners = [s for s, n in enumerate(new) for _ in range(n)]
    slots = [tables[s][p // block_size] * block_size + p % block_size for s, p in zip(owners, positions, strict=True)]
    if kind in ("fresh", "bare") and draw(st.booleans()):
        slots[draw(st.integers(0, len(slots) - 1))] = -1
    padded = np.array([t + [-1] * (max(needed) - len(t)) for t in tables], np.int32)
    context: dict[str, Any] = {"is_prefill": kind != "decode"}
    if kind == "decode":
        context |= {"context_lens": np.array(total, np.int32)}
    else:
        context |= {
            "cu_seqlens_q": np.cumsum([0, *new]).astype(np.int32),
            "cu_seqlens_k": np.cumsum([0, *total]).astype(np.int32),
            "max_seqlen_q": max(new),
            "max_seqlen_k": max(total),
        }
    if kind in ("prefix", "decode"):
        context["block_tables"] = padded
    if kind != "bare":
        context["slot_mapping"] = np.array(slots, np.int32)
    return Step(context, np.array(positions), 0 if kind == "bare" else num_blocks, block_size)
