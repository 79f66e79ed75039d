//! Which sequences the next step computes: continuous batching, chunked prefill, preemption.

mod alternating;
mod mixed;
mod queue;
mod twins;

use crate::block_manager::BlockManager;
use crate::config::{EngineConfig, SchedulingPolicy};
use crate::errors::EngineError;
use crate::pace::Pace;
use crate::pooling::Pooler;
use crate::sequence::{FinishReason, Sequence, SequenceStatus};
use crate::slab::{Key, Slab};
use nanovllm_backend::{BlockCopy, Sampled};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// What [`Scheduler::schedule`] decided; the sequences are in [`Scheduler::scheduled`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Whether this step prefills; otherwise it decodes alone.
    pub is_prefill: bool,
    /// Sequences in the step; 0 when nothing is left to do.
    pub num_seqs: usize,
    /// Rows in the step.
    pub num_tokens: usize,
    /// Those of them that prefill.
    pub num_prefill_tokens: usize,
    /// Tokens that the prefix cache spared the sequences admitted in this step.
    pub num_cached_tokens: usize,
}

/// Owns the sequences until they finish, and the KV pool's books.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) max_num_seqs: usize,
    pub(crate) max_num_batched_tokens: usize,
    max_model_len: usize,
    pub(crate) eos: Vec<u32>,
    pub(crate) policy: SchedulingPolicy,
    /// What steps have cost, where they are mixed.
    pub(crate) pace: Pace,
    /// Sequences queued so far.
    num_arrived: u64,
    pub(crate) block_manager: BlockManager,
    pub(crate) seqs: Slab,
    /// The key of each sequence that waits or runs, by sequence id.
    pub(crate) keys: HashMap<u64, Key>,
    pub(crate) waiting: VecDeque<Key>,
    pub(crate) running: VecDeque<Key>,
    /// The sequences of the step under way, in order; empty between steps.
    pub(crate) batch: Vec<Key>,
    /// What was decided for the step under way.
    pub(crate) schedule: Schedule,
    /// The sequences of the step under way that continue a prefill which an earlier step began: the first at most, unless
    /// a program has preempted another by hand.
    resumed: Vec<Key>,
    /// The sequences of a mixed step under way that were admitted in it.
    admitted: Vec<Key>,
    /// Whether the last mixed step embedded.
    has_embedded: bool,
    /// What blocks of the step under way are to hold before it is computed.
    copies: Vec<BlockCopy>,
    /// Sequences that have finished and were not taken yet.
    finished: Vec<Sequence>,
    num_preemptions: u64,
}

impl Scheduler {
    /// An empty scheduler over a pool of `num_blocks` blocks.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a field out of range; [`EngineError::BlockTablesTooLarge`] when the books do not fit in
    /// memory.
    pub fn new(config: &EngineConfig, num_blocks: usize) -> Result<Self, EngineError> {
        config.validate()?;
        Ok(Self {
            max_num_seqs: config.max_num_seqs,
            max_num_batched_tokens: config.max_num_batched_tokens,
            max_model_len: config.max_model_len,
            eos: config.eos.clone(),
            policy: config.policy,
            pace: Pace::new(config.max_inter_token_latency),
            num_arrived: 0,
            block_manager: BlockManager::new(num_blocks, config.kvcache_block_size)?,
            seqs: Slab::default(),
            keys: HashMap::new(),
            waiting: VecDeque::new(),
            running: VecDeque::new(),
            batch: Vec::new(),
            schedule: Schedule::default(),
            resumed: Vec::new(),
            admitted: Vec::new(),
            has_embedded: false,
            copies: Vec::new(),
            finished: Vec::new(),
            num_preemptions: 0,
        })
    }

    /// Queues a new sequence, which was made for the pool's block size: nano-vLLM's `add`. One that the pool can never hold
    /// is accepted and finishes with [`FinishReason::Length`]; [`RequestLimits::check`](crate::RequestLimits::check) tells
    /// beforehand.
    ///
    /// # Errors
    /// [`EngineError::DuplicateSeqId`] for an id that a sequence of this scheduler has.
    pub(crate) fn enqueue(&mut self, seq: Sequence) -> Result<(), EngineError> {
        let seq_id = seq.seq_id;
        if self.get(seq_id).is_some() {
            return Err(EngineError::DuplicateSeqId(seq_id));
        }
        let mut seq = seq;
        seq.make_processors(&self.eos);
        seq.arrival = self.num_arrived;
        self.num_arrived += 1;
        let key = self.seqs.insert(seq);
        self.keys.insert(seq_id, key);
        self.wait_behind(key);
        Ok(())
    }

    /// Decides the next step. It must be answered with [`postprocess`](Self::postprocess) or
    /// [`rollback`](Self::rollback); a step still open is rolled back first. Sequences that the pool ends here are in
    /// [`take_finished`](Self::take_finished).
    pub fn schedule(&mut self) -> Schedule {
        self.schedule_with(false)
    }

    /// As [`schedule`](Self::schedule), but twins share their prompt: of sequences that are [twins](Sequence::twin_of) and are
    /// admitted in the same step only the first brings rows, and each samples after its last one.
    pub(crate) fn schedule_sharing(&mut self) -> Schedule {
        self.schedule_with(true)
    }

    fn schedule_with(&mut self, shares_prompts: bool) -> Schedule {
        self.rollback();
        loop {
            if self.policy == SchedulingPolicy::Mixed {
                self.schedule_mixed(shares_prompts);
            } else {
                self.schedule_alternating(shares_prompts);
            }
            if !self.batch.is_empty() {
                break;
            }
            // nano-vLLM's `assert scheduled_seqs` fails here: nothing runs, and the head is larger than the pool; unless it came
            // before the last to run, which the pool has just ended.
            let Some(&key) = self.waiting.front() else { break };
            if self.block_manager.can_allocate(&mut self.seqs[key]).is_some() {
                continue;
            }
            self.waiting.pop_front();
            self.finish(key, FinishReason::Length);
        }
        self.schedule.num_seqs = self.batch.len();
        self.schedule
    }

    /// Makes room for one more token of the sequence, in a block of its own: preempts from the tail of the running queue, itself
    /// last.
    fn append_or_preempt(&mut self, key: Key) -> bool {
        while !self.may_append(key) {
            let Some(victim) = self.running.pop_back() else {
                self.preempt(key);
                return false;
            };
            self.preempt(victim);
        }
        true
    }

    fn may_append(&mut self, key: Key) -> bool {
        let seq = &mut self.seqs[key];
        self.block_manager.may_append(seq) && self.block_manager.own_last_block(seq, &mut self.copies)
    }

    /// Takes a sequence's blocks and puts it at the head of the waiting queue; it is in neither queue when this is called.
    pub(crate) fn preempt(&mut self, key: Key) {
        let seq = &mut self.seqs[key];
        seq.status = SequenceStatus::Waiting;
        seq.is_prefill = true;
        self.block_manager.deallocate(seq);
        self.wait_ahead(key);
        self.num_preemptions += 1;
    }

    /// Takes in how likely the tokens of the step under way are, where that was asked for, from what the model answered for its
    /// rows; appends the tokens of the sequences that sample to `token_ids`.
    pub(crate) fn take_sampled(&mut self, sampled: Vec<Sampled>, token_ids: &mut Vec<u32>) {
        let mut sampled = sampled.into_iter();
        for &key in &self.batch {
            let seq = &mut self.seqs[key];
            let rows = seq.prompt_rows();
            let of_prompt = sampled.by_ref().take(rows.len()).filter_map(|sampled| sampled.logprobs);
            seq.prompt_logprobs.extend(of_prompt.map(|logprobs| *logprobs));
            if seq.samples()
                && let Some(Sampled { token, logprobs }) = sampled.next()
            {
                token_ids.push(token);
                seq.logprobs.extend(logprobs.map(|logprobs| *logprobs));
            }
        }
    }

    /// Whether the sequences of the step under way are embedded.
    pub(crate) fn pools(&self) -> bool {
        self.batch.first().is_some_and(|&key| self.seqs[key].pooler.is_some())
    }

    /// Takes the poolers of the step under way out of their sequences, with the positions whose rows each is to be given, in order.
    pub(crate) fn take_poolers(&mut self) -> Vec<(Box<Pooler>, Range<usize>)> {
        let poolers = self.batch.iter().filter_map(|&key| {
            let seq = &mut self.seqs[key];
            let rows = seq.pooled_rows();
            Some((seq.pooler.take()?, rows))
        });
        poolers.collect()
    }

    /// Puts poolers back that [`take_poolers`](Self::take_poolers) has taken.
    pub(crate) fn return_poolers(&mut self, poolers: Vec<(Box<Pooler>, Range<usize>)>) {
        for (&key, (pooler, _)) in self.batch.iter().zip(poolers) {
            self.seqs[key].pooler = Some(pooler);
        }
    }

    /// Takes the step's results in: `token_ids` has one token for each sequence of [`scheduled`](Self::scheduled) whose
    /// last known token the step computed, in order.
    ///
    /// # Errors
    /// [`EngineError::TokenCount`], with nothing changed.
    pub fn postprocess(&mut self, token_ids: &[u32]) -> Result<(), EngineError> {
        let expected = self.num_sampling();
        if token_ids.len() != expected {
            return Err(EngineError::TokenCount { expected, got: token_ids.len() });
        }
        let batch = std::mem::take(&mut self.batch);
        let num_finished = self.finished.len();
        let mut token_ids = token_ids.iter();
        for &key in &batch {
            let seq = &mut self.seqs[key];
            let (samples, is_embedded) = (seq.samples(), seq.completes() && seq.pooler.is_some());
            self.block_manager.hash_blocks(seq);
            seq.num_cached_tokens += seq.num_scheduled_tokens;
            seq.num_scheduled_tokens = 0;
            if samples && let Some(&token_id) = token_ids.next() {
                seq.append_token(token_id);
                if self.policy == SchedulingPolicy::Mixed {
                    seq.is_prefill = false;
                }
                if let Some((reason, stop_token)) = finish_reason(seq, &self.eos, self.max_model_len) {
                    seq.stop_token = stop_token;
                    self.finish(key, reason);
                }
            } else if is_embedded {
                self.finish(key, FinishReason::Stop);
            }
        }
        if self.finished.len() > num_finished {
            // The key of a sequence that has just finished finds a vacant one, which waits; all others in this queue run.
            self.running.retain(|&key| self.seqs[key].status == SequenceStatus::Running);
        }
        self.batch = batch;
        self.close_step();
        Ok(())
    }

    /// Undoes [`schedule`](Self::schedule) for a step that was not computed: the sequences of a decode step give back the
    /// block they had just been given and stay at the head of the running queue (but one whose block has not got yet what it is to
    /// hold is preempted); those of a prefill step return to the head
    /// of the waiting queue in their order, without blocks, but a prefill begun in an earlier step keeps what it has
    /// computed. What the cache holds in the rows of the failed step does not matter: they are computed again before they
    /// are read.
    pub fn rollback(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        for &key in batch.iter().rev() {
            let seq = &mut self.seqs[key];
            seq.num_scheduled_tokens = 0;
            if !seq.is_prefill {
                let last = seq.block_table.last();
                if self.copies.iter().any(|copy| Some(&copy.to) == last) {
                    self.running.retain(|&other| other != key);
                    self.preempt(key);
                } else {
                    self.block_manager.undo_append(seq);
                }
                continue;
            }
            let is_new = match self.policy {
                SchedulingPolicy::Mixed => self.admitted.contains(&key),
                _ => !self.resumed.contains(&key),
            };
            if is_new {
                self.block_manager.deallocate(seq);
                if seq.num_completion_tokens() == 0 {
                    seq.prefix_cache_hit = None;
                }
            }
            if seq.status == SequenceStatus::Running && (is_new || self.policy != SchedulingPolicy::Mixed) {
                seq.status = SequenceStatus::Waiting;
                self.running.retain(|&other| other != key);
                if is_new {
                    self.wait_ahead(key);
                } else {
                    self.waiting.push_front(key); // a prefill that was begun goes on first
                }
            }
        }
        self.batch = batch;
        self.close_step();
    }

    fn close_step(&mut self) {
        self.batch.clear();
        self.schedule = Schedule::default();
        self.resumed.clear();
        self.admitted.clear();
        self.copies.clear();
    }

    /// What blocks of the step under way are to hold before it is computed, in order.
    pub(crate) fn copies(&self) -> &[BlockCopy] {
        &self.copies
    }

    /// Says that the blocks hold what they are to hold.
    pub(crate) fn copied(&mut self) {
        self.copies.clear();
    }

    fn finish(&mut self, key: Key, reason: FinishReason) {
        let mut seq = self.detach(key);
        seq.status = SequenceStatus::Finished;
        seq.finish_reason = Some(reason);
        self.finished.push(seq);
    }

    /// Takes a sequence and its blocks out of the scheduler; whoever calls this takes its key out of the queues.
    fn detach(&mut self, key: Key) -> Sequence {
        let mut seq = self.seqs.remove(key);
        self.keys.remove(&seq.seq_id);
        self.block_manager.deallocate(&mut seq);
        seq.num_scheduled_tokens = 0;
        seq
    }

    /// Drops a sequence, wherever it stands; an open step is rolled back first. A sequence that has finished but has not
    /// been taken is dropped too. `None` if the id is unknown.
    pub fn abort(&mut self, seq_id: u64) -> Option<Sequence> {
        if let Some(at) = self.finished.iter().position(|seq| seq.seq_id == seq_id) {
            return Some(self.finished.remove(at));
        }
        let key = *self.keys.get(&seq_id)?;
        self.rollback();
        self.waiting.retain(|&other| other != key);
        self.running.retain(|&other| other != key);
        Some(self.detach(key))
    }

    /// The sequences that have finished since the last call, in order.
    pub fn take_finished(&mut self) -> std::vec::Drain<'_, Sequence> {
        self.finished.drain(..)
    }

    /// Sequences that have finished and were not taken yet.
    pub fn num_finished(&self) -> usize {
        self.finished.len()
    }

    /// Whether no sequence waits or runs.
    pub fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// A sequence by id: waiting, running, or finished and not taken yet.
    pub fn get(&self, seq_id: u64) -> Option<&Sequence> {
        match self.keys.get(&seq_id) {
            Some(&key) => Some(&self.seqs[key]),
            None => self.finished.iter().find(|seq| seq.seq_id == seq_id),
        }
    }

    /// The sequences of the step under way, in order.
    pub fn scheduled(&self) -> impl ExactSizeIterator<Item = &Sequence> + Clone {
        self.batch.iter().map(|&key| &self.seqs[key])
    }

    /// Number of sequences of the step under way that get a token from it.
    pub fn num_sampling(&self) -> usize {
        self.scheduled().filter(|seq| seq.samples()).count()
    }

    /// The waiting queue, the next to be admitted first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Sequence> + Clone {
        self.waiting.iter().map(|&key| &self.seqs[key])
    }

    /// The running queue, the last to be preempted first.
    pub fn running(&self) -> impl ExactSizeIterator<Item = &Sequence> + Clone {
        self.running.iter().map(|&key| &self.seqs[key])
    }

    /// The KV pool's books.
    pub fn block_manager(&self) -> &BlockManager {
        &self.block_manager
    }

    /// How often a running sequence has given up its blocks so far.
    pub fn num_preemptions(&self) -> u64 {
        self.num_preemptions
    }
}

/// Why a sequence ends with its newest token, if it does, and that token where its request named it.
fn finish_reason(seq: &Sequence, eos: &[u32], max_model_len: usize) -> Option<(FinishReason, Option<u32>)> {
    let (params, token) = (&seq.params, seq.last_token());
    if seq.num_completion_tokens() >= params.min_tokens {
        // A token that ends sequences may be named, too.
        if params.stop_token_ids.contains(&token) {
            return Some((FinishReason::Stop, Some(token)));
        }
        if !params.ignore_eos && eos.contains(&token) {
            return Some((FinishReason::Stop, None));
        }
    }
    (seq.num_completion_tokens() >= params.max_tokens || seq.num_tokens() >= max_model_len)
        .then_some((FinishReason::Length, None))
}
