//! What a program that drives the scheduler itself needs beyond [`Scheduler::schedule`] and
//! [`Scheduler::postprocess`].

use crate::block_manager::BlockManager;
use crate::config::EngineConfig;
use crate::errors::EngineError;
use crate::sampling_params::SamplingParams;
use crate::scheduler::{Schedule, Scheduler};
use crate::sequence::Sequence;

impl Scheduler {
    /// Queues a sequence that a program has made. One that the pool can never hold is accepted and finishes with
    /// [`FinishReason::Length`](crate::FinishReason::Length).
    ///
    /// # Errors
    /// The same as [`check_add`](Self::check_add)'s.
    pub fn add(&mut self, seq: Sequence) -> Result<(), EngineError> {
        self.check_add(&seq)?;
        self.enqueue(seq.into_new())
    }

    /// Checks whether [`add`](Self::add) would take the sequence.
    ///
    /// # Errors
    /// [`EngineError::DuplicateSeqId`] and [`EngineError::BlockSizeMismatch`]; [`EngineError::Precondition`] for one that
    /// holds blocks, is finished, or does not know its tokens.
    pub fn check_add(&self, seq: &Sequence) -> Result<(), EngineError> {
        self.block_manager.check_block_size(seq)?;
        if self.get(seq.seq_id).is_some() {
            return Err(EngineError::DuplicateSeqId(seq.seq_id));
        }
        let got = if !seq.has_tokens() {
            "one pickled for decoding"
        } else if seq.is_finished() {
            "a finished one"
        } else if !seq.block_table.is_empty() || !self.block_manager.lease(seq).is_empty() {
            "one that holds blocks"
        } else {
            return Ok(());
        };
        Err(EngineError::Precondition { method: "add", needs: "a new sequence", got: got.to_owned() })
    }

    /// [`postprocess`](Self::postprocess) as nano-vLLM calls it: one token for each scheduled sequence. Those of sequences
    /// that do not sample are ignored.
    ///
    /// # Errors
    /// [`EngineError::TokenCount`], with nothing changed.
    pub fn postprocess_all(&mut self, token_ids: &[u32]) -> Result<(), EngineError> {
        if token_ids.len() != self.batch.len() {
            return Err(EngineError::TokenCount { expected: self.batch.len(), got: token_ids.len() });
        }
        let sampled: Vec<u32> =
            self.scheduled().zip(token_ids).filter(|(seq, _)| seq.samples()).map(|(_, &token_id)| token_id).collect();
        self.postprocess(&sampled)
    }

    /// Takes a sequence's blocks and puts it at the head of the waiting queue, wherever it stood. A step under way that
    /// computes it is rolled back.
    ///
    /// # Errors
    /// [`EngineError::UnknownSeqId`] where no sequence of that id waits or runs.
    pub fn preempt_by_id(&mut self, seq_id: u64) -> Result<(), EngineError> {
        let key = *self.keys.get(&seq_id).ok_or(EngineError::UnknownSeqId(seq_id))?;
        if self.batch.contains(&key) {
            self.rollback();
        }
        self.waiting.retain(|&other| other != key);
        self.running.retain(|&other| other != key);
        self.preempt(key);
        Ok(())
    }

    /// What [`schedule`](Self::schedule) decided for the step under way.
    pub fn current(&self) -> Schedule {
        self.schedule
    }

    /// Changes the sampling parameters of a sequence that waits or runs; the caller validates. `None` where there is none of that id.
    pub fn set_sampling_params(&mut self, seq_id: u64, params: SamplingParams) -> Option<()> {
        let seq = &mut self.seqs[*self.keys.get(&seq_id)?];
        seq.set_params(params, &self.eos);
        Some(())
    }

    /// The KV pool's books, for sequences that are not the scheduler's.
    pub fn block_manager_mut(&mut self) -> &mut BlockManager {
        &mut self.block_manager
    }

    /// Most rows of one prefill step.
    pub fn max_num_batched_tokens(&self) -> usize {
        self.max_num_batched_tokens
    }

    /// Most sequences at a time, in one step or running; see [`SchedulingPolicy`](crate::SchedulingPolicy).
    pub fn max_num_seqs(&self) -> usize {
        self.max_num_seqs
    }

    /// End-of-sequence ids.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Changes the limits of a step, from the next one on.
    ///
    /// # Errors
    /// [`EngineError::Config`], with nothing changed.
    pub fn set_limits(&mut self, max_num_batched_tokens: usize, max_num_seqs: usize) -> Result<(), EngineError> {
        EngineConfig { max_num_batched_tokens, max_num_seqs, ..EngineConfig::default() }.validate()?;
        (self.max_num_batched_tokens, self.max_num_seqs) = (max_num_batched_tokens, max_num_seqs);
        Ok(())
    }

    /// Changes the end-of-sequence ids.
    pub fn set_eos(&mut self, eos: Vec<u32>) {
        self.eos = eos;
        for &key in self.keys.values() {
            self.seqs[key].make_processors(&self.eos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SchedulingPolicy;
    use crate::sequence::SequenceStatus;

    fn sequence(seq_id: u64, len: u32) -> Sequence {
        Sequence::new(seq_id, (0..len).collect(), SamplingParams::default(), 2).unwrap()
    }

    fn scheduler(max_num_batched_tokens: usize) -> Scheduler {
        let policy = SchedulingPolicy::NanoVllm;
        let config = EngineConfig { kvcache_block_size: 2, max_num_batched_tokens, policy, ..Default::default() };
        Scheduler::new(&config, 8).unwrap()
    }

    fn ids<'a>(queue: impl Iterator<Item = &'a Sequence>) -> Vec<u64> {
        queue.map(|seq| seq.seq_id).collect()
    }

    #[test]
    fn tokens_of_unfinished_chunks_are_ignored() {
        let mut scheduler = scheduler(3);
        scheduler.add(sequence(0, 5)).unwrap();
        assert_eq!(scheduler.schedule().num_tokens, 3);
        assert!(matches!(scheduler.postprocess_all(&[]), Err(EngineError::TokenCount { expected: 1, got: 0 })));
        scheduler.postprocess_all(&[77]).unwrap();
        assert_eq!(scheduler.get(0).unwrap().num_tokens(), 5);
        assert_eq!(scheduler.schedule().num_tokens, 2);
        scheduler.postprocess_all(&[78]).unwrap();
        assert_eq!(scheduler.get(0).unwrap().completion_token_ids(), [78]);
    }

    #[test]
    fn preemption_by_hand_returns_every_block() {
        let mut scheduler = scheduler(64);
        for id in 0..3 {
            scheduler.add(sequence(id, 3)).unwrap();
        }
        scheduler.schedule();
        scheduler.postprocess_all(&[50, 51, 52]).unwrap();
        scheduler.preempt_by_id(1).unwrap();
        assert_eq!((ids(scheduler.waiting()), ids(scheduler.running())), (vec![1], vec![0, 2]));
        let seq = scheduler.get(1).unwrap();
        assert_eq!((seq.status, seq.is_prefill, seq.block_table.len()), (SequenceStatus::Waiting, true, 0));
        scheduler.schedule();
        scheduler.preempt_by_id(1).unwrap();
        assert_eq!(scheduler.current(), Schedule::default(), "the step that computed it is gone");
        assert_eq!(scheduler.block_manager().num_free_blocks(), 8 - 2 * 2);
        assert!(matches!(scheduler.preempt_by_id(9), Err(EngineError::UnknownSeqId(9))));
    }

    #[test]
    fn a_step_taken_back_keeps_a_prefill_that_is_not_its_first_sequence() {
        let mut scheduler = scheduler(3);
        scheduler.add(sequence(0, 5)).unwrap();
        scheduler.schedule();
        scheduler.postprocess_all(&[77]).unwrap();
        scheduler.add(sequence(1, 3)).unwrap();
        scheduler.preempt_by_id(1).unwrap();
        scheduler.set_limits(64, 8).unwrap();
        scheduler.schedule();
        assert_eq!(ids(scheduler.scheduled()), [1, 0]);
        scheduler.rollback();
        assert_eq!(ids(scheduler.waiting()), [1, 0]);
        let held = |id| scheduler.get(id).map(|seq| (seq.block_table.len(), seq.num_cached_tokens)).unwrap();
        assert_eq!((held(1), held(0)), ((0, 0), (3, 3)));
    }

    #[test]
    fn only_new_sequences_are_added() {
        let scheduler = scheduler(64);
        let mut seq = sequence(0, 3);
        scheduler.check_add(&seq).unwrap();
        seq.block_table = vec![1];
        assert!(scheduler.check_add(&seq).unwrap_err().to_string().contains("holds blocks"));
        let mut seq = sequence(0, 3);
        seq.status = SequenceStatus::Finished;
        assert!(scheduler.check_add(&seq).unwrap_err().to_string().contains("finished"));
        let copy = sequence(0, 3).copy_for_step(false);
        assert!(scheduler.check_add(&copy).unwrap_err().to_string().contains("pickled"));
    }
}
