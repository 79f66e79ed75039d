"""`engine/scheduler.py`: which sequences the next step computes."""

from __future__ import annotations

from typing import Any

from .block_manager import BlockManager
from .sequence import Sequence, SequenceStatus


class Scheduler:
    """Prefill first: a step decodes only where no waiting sequence can be prefilled."""

    def __init__(self, config: Any) -> None:
        self.max_num_seqs = config.max_num_seqs
        self.max_num_batched_tokens = config.max_num_batched_tokens
        self.eos = config.eos
        self.block_manager = BlockManager(config.num_kvcache_blocks, config.kvcache_block_size)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def is_finished(self) -> bool:
        """Whether nothing is queued."""
        return not (self.waiting or self.running)

    def add(self, seq: Sequence) -> None:
        """Queues a sequence."""
        self.waiting.append(seq)

    def schedule(self) -> tuple[list[Sequence], bool]:
        """The sequences of the next step, and whether it prefills. AssertionError where nothing can be computed."""
        if prefilled := self._prefill():
            return prefilled, True
        if decoded := self._decode():
            return decoded, False
        raise AssertionError("nothing can be scheduled")

    def _prefill(self) -> list[Sequence]:
        """In order of arrival, whole prompts while they fit the step. Its first may be cut, and stays at the head."""
        batch: list[Sequence] = []
        budget = self.max_num_batched_tokens
        while self.waiting and budget > 0 and len(batch) < self.max_num_seqs:
            seq = self.waiting[0]
            num_cached_blocks = 0 if seq.block_table else self.block_manager.can_allocate(seq)
            if num_cached_blocks < 0:
                break
            cached = seq.num_cached_tokens if seq.block_table else num_cached_blocks * self.block_manager.block_size
            left = len(seq) - cached
            if left > budget and batch:
                break
            if not seq.block_table:
                self.block_manager.allocate(seq, num_cached_blocks)
            seq.num_scheduled_tokens = min(left, budget)
            budget -= seq.num_scheduled_tokens
            batch.append(seq)
            if seq.num_scheduled_tokens == left:
                seq.status = SequenceStatus.RUNNING
                self.running.append(self.waiting.pop(0))
        return batch

    def _decode(self) -> list[Sequence]:
        """One token each, oldest first. Where blocks run out, the youngest goes back to the head of the queue."""
        batch: list[Sequence] = []
        while self.running and len(batch) < self.max_num_seqs:
            seq = self.running.pop(0)
            while self.running and not self.block_manager.can_append(seq):
                self._preempt(self.running.pop())
            if self.block_manager.can_append(seq):
                self.block_manager.may_append(seq)
                seq.num_scheduled_tokens, seq.is_prefill = 1, False
                batch.append(seq)
            else:
                self._preempt(seq)
        self.running = batch + self.running
        return batch

    def _preempt(self, seq: Sequence) -> None:
        seq.status, seq.is_prefill = SequenceStatus.WAITING, True
        self.block_manager.deallocate(seq)
        self.waiting.insert(0, seq)

    def postprocess(self, seqs: list[Sequence], token_ids: list[int], is_prefill: bool) -> None:
        """Books a step: a token for each sequence, which is dropped where its prefill is not complete."""
        for seq, token_id in zip(seqs, token_ids, strict=True):
            self.block_manager.hash_blocks(seq)
            seq.num_cached_tokens += seq.num_scheduled_tokens
            seq.num_scheduled_tokens = 0
            if is_prefill and seq.num_cached_tokens < len(seq):
                continue
            seq.append_token(token_id)
            stops = token_id == self.eos and not seq.ignore_eos
            if stops or seq.num_completion_tokens == seq.max_tokens:
                seq.status = SequenceStatus.FINISHED
                self.block_manager.deallocate(seq)
                self.running.remove(seq)
