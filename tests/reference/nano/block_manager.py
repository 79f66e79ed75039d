"""`engine/block_manager.py`: who has which block of the KV cache, and which are known prefixes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import xxhash

from .sequence import Sequence


@dataclass
class Block:
    """A block's books. Hash and tokens outlive its release, so that a later prompt can find it."""

    block_id: int
    ref_count: int = 0
    hash: int = -1
    token_ids: list[int] = field(default_factory=list)


class BlockManager:
    """A pool: free blocks are a queue, taken from the front, returned to the back."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.blocks = [Block(i) for i in range(num_blocks)]
        self.free_block_ids = list(range(num_blocks))
        self.hash_to_block_id: dict[int, int] = {}

    @property
    def used_block_ids(self) -> set[int]:
        """Blocks that some sequence has in its table."""
        return {block.block_id for block in self.blocks if block.ref_count > 0}

    @staticmethod
    def compute_hash(token_ids: list[int], prefix: int = -1) -> int:
        """xxh64 of the hash of all blocks before, if any, and the tokens, as 8 little-endian bytes each."""
        before = b"" if prefix == -1 else struct.pack("<Q", prefix)
        return xxhash.xxh64_intdigest(before + struct.pack(f"<{len(token_ids)}q", *token_ids), seed=0)

    def _known_prefix(self, seq: Sequence) -> list[int]:
        """The blocks that hold the sequence's first blocks. The last is not looked up: something must be computed."""
        found, prefix = [], -1
        for i in range(seq.num_blocks - 1):
            prefix = self.compute_hash(seq.block(i), prefix)
            block_id = self.hash_to_block_id.get(prefix)
            if block_id is None or self.blocks[block_id].token_ids != seq.block(i):
                break
            found.append(block_id)
        return found

    def can_allocate(self, seq: Sequence) -> int:
        """How many of its blocks are known; -1 if the free blocks are too few. A known block may be free itself."""
        known = self._known_prefix(seq)
        shared = sum(self.blocks[block_id].ref_count > 0 for block_id in known)
        return len(known) if seq.num_blocks - shared <= len(self.free_block_ids) else -1

    def allocate(self, seq: Sequence, num_cached_blocks: int) -> None:
        """Gives it its blocks: known ones from wherever they are, the rest from the front of the queue."""
        if seq.block_table:
            raise AssertionError("it has blocks already")
        for block_id in self._known_prefix(seq)[:num_cached_blocks]:
            if self.blocks[block_id].ref_count == 0:
                self.free_block_ids.remove(block_id)
            self.blocks[block_id].ref_count += 1
            seq.block_table.append(block_id)
        while len(seq.block_table) < seq.num_blocks:
            self._take_one(seq)
        seq.num_cached_tokens = num_cached_blocks * self.block_size

    def _take_one(self, seq: Sequence) -> None:
        block_id = self.free_block_ids.pop(0)
        if self.hash_to_block_id.get(self.blocks[block_id].hash) == block_id:
            del self.hash_to_block_id[self.blocks[block_id].hash]
        self.blocks[block_id] = Block(block_id, ref_count=1)
        seq.block_table.append(block_id)

    def deallocate(self, seq: Sequence) -> None:
        """Takes its blocks back, the last one first, so that prefixes are forgotten from their ends."""
        while seq.block_table:
            block = self.blocks[seq.block_table.pop()]
            block.ref_count -= 1
            if block.ref_count == 0:
                self.free_block_ids.append(block.block_id)
        seq.num_cached_tokens = 0

    def _starts_block(self, seq: Sequence) -> bool:
        return len(seq) % self.block_size == 1

    def can_append(self, seq: Sequence) -> bool:
        """Whether its newest token has a place: in its last block, or in a free one."""
        return bool(self.free_block_ids) or not self._starts_block(seq)

    def may_append(self, seq: Sequence) -> None:
        """Gives it a block for its newest token, if that token starts one."""
        if self._starts_block(seq):
            self._take_one(seq)

    def hash_blocks(self, seq: Sequence) -> None:
        """Makes known the blocks that the step has filled. Of two blocks with the same prefix the later is known."""
        done, end = seq.num_cached_tokens, seq.num_cached_tokens + seq.num_scheduled_tokens
        for i in range(done // self.block_size, end // self.block_size):
            block = self.blocks[seq.block_table[i]]
            prefix = self.blocks[seq.block_table[i - 1]].hash if i > 0 else -1
            block.token_ids = seq.block(i)
            block.hash = self.compute_hash(block.token_ids, prefix)
            self.hash_to_block_id[block.hash] = block.block_id
