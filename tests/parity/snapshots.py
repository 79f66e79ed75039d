"""What can be seen of an engine between steps, as plain values, in the words of the recorded traces."""

from __future__ import annotations

from typing import Any


def describe_seq(seq: Any) -> dict[str, Any]:
    """A sequence."""
    return {
        "id": seq.seq_id,
        "status": seq.status.name,
        "n": seq.num_tokens,
        "cached": seq.num_cached_tokens,
        "sched": seq.num_scheduled_tokens,
        "table": list(seq.block_table),
        "prefill": seq.is_prefill,
        "last": seq.last_token,
    }


def describe_blocks(manager: Any) -> dict[str, Any]:
    """A pool of blocks. Hashes are texts, as JSON has no 64-bit integers."""
    return {
        "free": list(manager.free_block_ids),
        "used": sorted(manager.used_block_ids),
        "ref": [block.ref_count for block in manager.blocks],
        "hash": [str(block.hash) for block in manager.blocks],
        "map": sorted([str(hash_), block_id] for hash_, block_id in manager.hash_to_block_id.items()),
    }


def block_tokens(manager: Any) -> list[list[int]]:
    """Of each block, the tokens that the prefix cache knows it by."""
    return [list(block.token_ids) for block in manager.blocks]


def describe_queues(scheduler: Any) -> dict[str, Any]:
    """The queues, and each sequence in them."""
    return {
        "waiting": [describe_seq(seq) for seq in scheduler.waiting],
        "running": [describe_seq(seq) for seq in scheduler.running],
        "finished": scheduler.is_finished(),
    }
