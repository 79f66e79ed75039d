//! Answers to one prompt, which is computed once.

use crate::scheduler::Scheduler;
use crate::sequence::SequenceStatus;
use crate::slab::Key;

impl Scheduler {
    /// Admits the head of the waiting queue without any rows if it is the twin of the last sequence of the step that has some, and
    /// this one ends its prompt there.
    pub(super) fn admit_twin(&mut self, key: Key) -> bool {
        let has_rows = |key: &&Key| self.seqs[**key].num_scheduled_tokens > 0;
        let Some(&other) = self.batch.iter().rev().find(has_rows) else { return false };
        let (first, seq) = (&self.seqs[other], &self.seqs[key]);
        let is_twin = seq.twin_of == Some(first.seq_id)
            && seq.block_table.is_empty()
            && first.samples()
            && first.token_ids() == seq.token_ids()
            && !seq.needs_whole_prompt();
        if !is_twin {
            return false;
        }
        let table = first.block_table.clone();
        let seq = &mut self.seqs[key];
        self.block_manager.share(table, seq);
        seq.num_cached_tokens = seq.num_tokens();
        seq.prefix_cache_hit.get_or_insert(seq.num_cached_tokens);
        self.schedule.num_cached_tokens += seq.num_cached_tokens;
        seq.status = SequenceStatus::Running;
        self.waiting.pop_front();
        self.run_behind(key);
        self.batch.push(key);
        true
    }
}
