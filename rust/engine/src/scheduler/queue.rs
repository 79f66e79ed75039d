//! The order of sequences in their queues: by priority and, where steps are mixed, by arrival. Where they are not, sequences of one
//! priority stand as nano-vLLM has them.

use std::collections::VecDeque;

use crate::config::SchedulingPolicy;
use crate::scheduler::Scheduler;
use crate::slab::{Key, Slab};

/// What sequences are ordered by; the least comes first.
type Rank = (i64, u64);

/// Puts a sequence behind all that come before it or are its equals.
fn put_behind(queue: &mut VecDeque<Key>, key: Key, rank: impl Fn(Key) -> Rank) {
    let at = queue.partition_point(|&other| rank(other) <= rank(key));
    queue.insert(at, key);
}

/// Puts a sequence ahead of its equals, too.
fn put_ahead(queue: &mut VecDeque<Key>, key: Key, rank: impl Fn(Key) -> Rank) {
    let at = queue.partition_point(|&other| rank(other) < rank(key));
    queue.insert(at, key);
}

fn rank(policy: SchedulingPolicy, seqs: &Slab) -> impl Fn(Key) -> Rank + '_ {
    move |key| {
        let seq = &seqs[key];
        (seq.priority, if policy == SchedulingPolicy::Mixed { seq.arrival } else { 0 })
    }
}

impl Scheduler {
    /// Whether the first of these sequences comes before the second.
    pub(super) fn comes_before(&self, key: Key, other: Key) -> bool {
        let rank = rank(self.policy, &self.seqs);
        rank(key) < rank(other)
    }

    /// Queues a new sequence. A prefill that an earlier step began goes on before it.
    pub(super) fn wait_behind(&mut self, key: Key) {
        let is_begun = self.waiting.front().is_some_and(|&first| !self.seqs[first].block_table.is_empty());
        let begun = if is_begun { self.waiting.pop_front() } else { None };
        put_behind(&mut self.waiting, key, rank(self.policy, &self.seqs));
        if let Some(begun) = begun {
            self.waiting.push_front(begun);
        }
    }

    /// Queues a sequence that had been admitted.
    pub(super) fn wait_ahead(&mut self, key: Key) {
        put_ahead(&mut self.waiting, key, rank(self.policy, &self.seqs));
    }

    /// Has a sequence run.
    pub(super) fn run_behind(&mut self, key: Key) {
        put_behind(&mut self.running, key, rank(self.policy, &self.seqs));
    }

    /// Has the sequences run on that a step has taken out of the queue from its head, in order.
    pub(super) fn run_on(&mut self, keys: impl DoubleEndedIterator<Item = Key>) {
        for key in keys.rev() {
            put_ahead(&mut self.running, key, rank(self.policy, &self.seqs));
        }
    }
}
