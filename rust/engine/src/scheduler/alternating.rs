//! nano-vLLM's steps, which prefill or decode: while a prompt waits that can be admitted, nothing is decoded.
//!
//! Why every sequence ends: at most one sequence is partly prefilled. It is the head of the waiting queue, and while it
//! exists every step is a prefill, which it leads; so a decode step never waits for blocks that a waiting sequence holds.
//! If neither prefill nor decode can schedule anything then nothing runs, all blocks are free, and the head of the waiting
//! queue is larger than the pool: nano-vLLM dies there, here that sequence finishes with [`FinishReason::Length`].
//! Otherwise a step prefills a chunk or appends tokens, and a completed prefill appends one too, so sequences cannot
//! preempt each other for ever.

use crate::config::SchedulingPolicy;
use crate::scheduler::Scheduler;
use crate::sequence::{FinishReason, SequenceStatus};

impl Scheduler {
    pub(super) fn schedule_alternating(&mut self, shares_prompts: bool) {
        self.schedule_prefill(shares_prompts);
        if self.batch.is_empty() {
            self.schedule_decode();
        }
    }

    fn schedule_prefill(&mut self, shares_prompts: bool) {
        while let Some(&key) = self.waiting.front()
            && self.may_admit()
        {
            if shares_prompts && self.admit_twin(key) {
                continue;
            }
            let remaining = self.max_num_batched_tokens - self.schedule.num_tokens;
            if remaining == 0 {
                break;
            }
            // A step samples or embeds.
            let pools = self.pools();
            let seq = &mut self.seqs[key];
            if !self.batch.is_empty() && seq.pooler.is_some() != pools {
                break;
            }
            let is_new = seq.block_table.is_empty();
            let num_cached_blocks = if is_new {
                match self.block_manager.can_allocate(seq) {
                    Some(num_cached_blocks) => num_cached_blocks,
                    None if self.policy == SchedulingPolicy::Default
                        && seq.num_blocks() > self.block_manager.num_blocks() =>
                    {
                        self.waiting.pop_front();
                        self.finish(key, FinishReason::Length);
                        continue;
                    }
                    None => break,
                }
            } else {
                0
            };
            let num_cached_tokens =
                if is_new { num_cached_blocks * self.block_manager.block_size() } else { seq.num_cached_tokens };
            let num_tokens = seq.num_tokens() - num_cached_tokens;
            // Only the head of a step may be prefilled in chunks.
            if remaining < num_tokens && !self.batch.is_empty() {
                break;
            }
            if is_new {
                if !self.block_manager.allocate(seq, num_cached_blocks) {
                    break;
                }
                seq.prefix_cache_hit.get_or_insert(num_cached_tokens);
                self.schedule.num_cached_tokens += num_cached_tokens;
            } else {
                self.resumed.push(key);
            }
            seq.num_scheduled_tokens = num_tokens.min(remaining);
            self.schedule.num_tokens += seq.num_scheduled_tokens;
            if seq.completes() {
                seq.status = SequenceStatus::Running;
                self.waiting.pop_front();
                self.run_behind(key);
            }
            self.batch.push(key);
        }
        self.schedule.is_prefill = !self.batch.is_empty();
        self.schedule.num_prefill_tokens = self.schedule.num_tokens;
    }

    fn may_admit(&self) -> bool {
        let admitted = match self.policy {
            SchedulingPolicy::NanoVllm => self.batch.len(),
            _ => self.running.len(),
        };
        admitted < self.max_num_seqs
    }

    fn schedule_decode(&mut self) {
        while self.batch.len() < self.max_num_seqs
            && let Some(key) = self.running.pop_front()
        {
            if self.append_or_preempt(key) {
                let seq = &mut self.seqs[key];
                seq.num_scheduled_tokens = 1;
                seq.is_prefill = false;
                self.batch.push(key);
            }
        }
        self.schedule.num_tokens = self.batch.len();
        let batch = std::mem::take(&mut self.batch);
        self.run_on(batch.iter().copied());
        self.batch = batch;
    }
}
