//! Steps that decode and prefill at once: every running sequence gets its next token in every step, and prompts are prefilled beside
//! them in chunks, as many rows as keep a step short ([`Pace`](crate::pace::Pace)).
//!
//! Sequences are in one order, by priority and then arrival. Running ones keep it, prompts are prefilled in it, the head of the
//! waiting queue is never passed over, and whoever needs room takes it from the last; so what a sequence waits for is those before
//! it alone. A sequence runs from its admission on, when it gets blocks for all of its tokens.
//!
//! Why every sequence ends: the first in the order is preempted by nobody, and every step computes some of its rows, unless the pool
//! is too small for it alone, which ends it.

use crate::scheduler::Scheduler;
use crate::sequence::{FinishReason, SequenceStatus};
use crate::slab::Key;

impl Scheduler {
    pub(super) fn schedule_mixed(&mut self, shares_prompts: bool) {
        self.make_room_for_head();
        // A step samples or embeds; where both are to be done they take turns.
        let embeds = self.is_embeddings_turn();
        self.compose(embeds, shares_prompts);
        if self.batch.is_empty() {
            self.compose(!embeds, shares_prompts);
        }
        self.has_embedded = self.pools();
    }

    fn compose(&mut self, embeds: bool, shares_prompts: bool) {
        let (mut prefills, mut idle, mut num_delayed) = (Vec::new(), Vec::new(), 0);
        while let Some(key) = self.running.pop_front() {
            let seq = &self.seqs[key];
            num_delayed += usize::from(!seq.is_prefill && embeds);
            if seq.is_prefill && seq.pooler.is_some() == embeds {
                prefills.push(key);
            } else if seq.is_prefill || embeds {
                idle.push(key);
            } else if self.append_or_preempt(key) {
                self.seqs[key].num_scheduled_tokens = 1;
                self.batch.push(key);
            }
        }
        let num_decoded = self.batch.len();
        // Those whose next token waits for this step, or comes with it.
        let rows = self.pace.prefill_rows(num_decoded.max(num_delayed));
        let mut rows = self.max_num_batched_tokens.min(rows);
        for &key in &prefills {
            rows -= self.prefill(key, rows);
        }
        for key in [&self.batch[..num_decoded], &prefills, &idle].concat() {
            self.run_behind(key);
        }
        self.admit(rows, embeds, shares_prompts);
        self.schedule.num_tokens = self.batch.iter().map(|&key| self.seqs[key].num_scheduled_tokens).sum();
        self.schedule.num_prefill_tokens = self.schedule.num_tokens - num_decoded;
        self.schedule.is_prefill = self.batch.len() > num_decoded;
    }

    /// Gives a sequence some of its rows to compute in this step, as many as are left; returns how many.
    fn prefill(&mut self, key: Key, rows: usize) -> usize {
        let seq = &mut self.seqs[key];
        let taken = rows.min(seq.num_tokens() - seq.num_cached_tokens);
        if taken > 0 {
            seq.num_scheduled_tokens = taken;
            self.batch.push(key);
        }
        taken
    }

    /// Admits waiting sequences in their order, for as many rows as are left.
    fn admit(&mut self, mut rows: usize, embeds: bool, shares_prompts: bool) {
        while let Some(&key) = self.waiting.front()
            && self.running.len() < self.max_num_seqs
        {
            if shares_prompts && self.admit_twin(key) {
                self.admitted.push(key);
                continue;
            }
            if rows == 0 || self.seqs[key].pooler.is_some() != embeds {
                break;
            }
            let seq = &mut self.seqs[key];
            let Some(num_cached_blocks) = self.block_manager.can_allocate(seq) else {
                if seq.num_blocks() > self.block_manager.num_blocks() {
                    self.waiting.pop_front();
                    self.finish(key, FinishReason::Length);
                    continue;
                }
                break;
            };
            if !self.block_manager.allocate(seq, num_cached_blocks) {
                break;
            }
            let num_cached_tokens = seq.num_cached_tokens;
            seq.prefix_cache_hit.get_or_insert(num_cached_tokens);
            seq.status = SequenceStatus::Running;
            self.schedule.num_cached_tokens += num_cached_tokens;
            self.waiting.pop_front();
            rows -= self.prefill(key, rows);
            self.run_behind(key);
            self.admitted.push(key);
        }
    }

    /// Preempts running sequences that come after the head of the waiting queue, from the last on, if it can be admitted then.
    fn make_room_for_head(&mut self) {
        let Some(&head) = self.waiting.front() else { return };
        let after = self.running.iter().rev().take_while(|&&key| self.comes_before(head, key));
        let (mut blocks, mut places) = (0, self.max_num_seqs.saturating_sub(self.running.len()));
        let needed = self.seqs[head].num_blocks();
        let mut victims = 0;
        for &key in after {
            if places > 0 && self.block_manager.num_free_blocks() + blocks >= needed {
                break;
            }
            blocks += self.block_manager.num_own_blocks(&self.seqs[key]);
            places += 1;
            victims += 1;
        }
        if places == 0 || self.block_manager.num_free_blocks() + blocks < needed {
            return; // nor would it help
        }
        for _ in 0..victims {
            // What it shares with others may be the head's prefix, so that fewer would do.
            let fits = self.block_manager.can_allocate(&mut self.seqs[head]).is_some();
            if fits && self.running.len() < self.max_num_seqs {
                break;
            }
            let Some(victim) = self.running.pop_back() else { break };
            self.preempt(victim);
        }
    }

    /// Whether this step embeds: the next prompt to be prefilled is to be embedded, and the last step did not, or nothing else is
    /// to be done.
    fn is_embeddings_turn(&self) -> bool {
        let begun = self.running.iter().find(|&&key| self.seqs[key].is_prefill);
        let is_next = begun.or(self.waiting.front()).is_some_and(|&key| self.seqs[key].pooler.is_some());
        let others = self.running.iter().any(|&key| self.seqs[key].pooler.is_none());
        is_next && !(self.has_embedded && others)
    }
}
