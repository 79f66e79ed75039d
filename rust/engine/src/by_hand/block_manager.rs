//! The block manager's methods for sequences that a program looks after itself. A sequence in the wrong state is an error
//! and changes nothing, where nano-vLLM asserts or goes on with broken books.
//!
//! Such a sequence says in its block table which blocks it has, and a program can set that table. So the pool keeps its own
//! record of what it gave to whom, a *lease*, and a table that says otherwise is refused. A pickled sequence is not the one
//! that was pickled and has no lease; a clone shares the lease of its original, and the first of the two to change it leaves
//! the other with a table that says otherwise.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block_manager::BlockManager;
use crate::errors::EngineError;
use crate::sequence::Sequence;

impl BlockManager {
    /// How many leading blocks the prefix cache has, if the pool can take the sequence now; `None` if it cannot.
    ///
    /// # Errors
    /// [`EngineError::BlockSizeMismatch`]; [`EngineError::Precondition`] for a sequence whose tokens are not known.
    pub fn can_allocate_checked(&self, seq: &mut Sequence) -> Result<Option<usize>, EngineError> {
        self.check_tokens("can_allocate", seq)?;
        Ok(self.can_allocate(seq))
    }

    /// Gives the sequence its blocks, the first `num_cached_blocks` from the prefix cache.
    ///
    /// # Errors
    /// Those of [`can_allocate_checked`](Self::can_allocate_checked); [`EngineError::Precondition`] when the sequence holds
    /// blocks already or the pool cannot give it this many.
    pub fn allocate_checked(&mut self, seq: &mut Sequence, num_cached_blocks: usize) -> Result<(), EngineError> {
        let method = "allocate";
        self.check_tokens(method, seq)?;
        let held = seq.block_table.len().max(self.lease(seq).len());
        if held > 0 {
            let got = format!("one that holds {held}");
            return Err(EngineError::Precondition { method, needs: "a sequence without blocks", got });
        }
        let known = self.can_allocate(seq).is_some_and(|known| num_cached_blocks <= known);
        if !known || !self.allocate(seq, num_cached_blocks) {
            let got = format!(
                "{num_cached_blocks} cached of {} blocks, with {} free",
                seq.num_blocks(),
                self.num_free_blocks()
            );
            return Err(EngineError::Precondition { method, needs: "the number can_allocate returned", got });
        }
        self.record(seq);
        Ok(())
    }

    /// Takes the sequence's blocks back, the last one first; those no other table holds become free but keep their hash.
    ///
    /// # Errors
    /// [`EngineError::Precondition`] for a block table that is not what this pool gave the sequence.
    pub fn deallocate_checked(&mut self, seq: &mut Sequence) -> Result<(), EngineError> {
        self.check_lease("deallocate", seq)?;
        if let Some(holder) = seq.holder {
            self.leases.remove(&holder);
        }
        self.deallocate(seq);
        Ok(())
    }

    /// Whether the pool has the block that the sequence's newest token may need.
    ///
    /// # Errors
    /// [`EngineError::BlockSizeMismatch`].
    pub fn can_append_checked(&self, seq: &Sequence) -> Result<bool, EngineError> {
        self.check_block_size(seq)?;
        Ok(self.can_append(seq))
    }

    /// Gives the sequence another block if its newest token opens one.
    ///
    /// # Errors
    /// [`EngineError::BlockSizeMismatch`]; [`EngineError::Precondition`] for a block table that is not what this pool gave
    /// the sequence, or when the pool has no block left.
    pub fn may_append_checked(&mut self, seq: &mut Sequence) -> Result<(), EngineError> {
        let method = "may_append";
        self.check_block_size(seq)?;
        self.check_lease(method, seq)?;
        if self.may_append(seq) {
            self.record(seq);
            return Ok(());
        }
        let got = "a pool without one".to_owned();
        Err(EngineError::Precondition { method, needs: "a free block", got })
    }

    /// Enters the blocks that the scheduled tokens have filled into the prefix cache. The pool takes the caller's word that
    /// they are computed.
    ///
    /// # Errors
    /// Those of [`can_allocate_checked`](Self::can_allocate_checked); [`EngineError::Precondition`] when cached and
    /// scheduled tokens are more than the sequence has, when its block table does not cover them or is not what this pool
    /// gave the sequence, or when the block before them was never entered.
    pub fn hash_blocks_checked(&mut self, seq: &Sequence) -> Result<(), EngineError> {
        let method = "hash_blocks";
        self.check_tokens(method, seq)?;
        let (cached, scheduled) = (seq.num_cached_tokens, seq.num_scheduled_tokens);
        let Some(end) = cached.checked_add(scheduled).filter(|&end| end <= seq.num_tokens()) else {
            let got = format!("{cached} + {scheduled} of {}", seq.num_tokens());
            return Err(EngineError::Precondition {
                method,
                needs: "no more cached and scheduled tokens than tokens",
                got,
            });
        };
        let covered = seq.block_table.iter().take_while(|&&id| (id as usize) < self.num_blocks()).count();
        let full = end / self.block_size();
        if covered < full {
            let got = format!("{covered} for {full} full blocks");
            return Err(EngineError::Precondition { method, needs: "blocks of this pool for the tokens", got });
        }
        self.check_lease(method, seq)?;
        let start = cached / self.block_size();
        if start < full
            && let Some(before) = start.checked_sub(1)
            && self.blocks()[seq.block_table[before] as usize].hash.is_none()
        {
            let got = format!("{cached} cached tokens, whose block {before} has no hash");
            return Err(EngineError::Precondition { method, needs: "the blocks before to have been entered", got });
        }
        self.hash_blocks(seq);
        Ok(())
    }

    /// The blocks that this pool gave the sequence, which no scheduler has.
    pub(crate) fn lease(&self, seq: &Sequence) -> &[u32] {
        seq.holder.and_then(|holder| self.leases.get(&holder)).map_or(&[], Vec::as_slice)
    }

    /// Checks that the sequence's block table is what this pool gave it.
    fn check_lease(&self, method: &'static str, seq: &Sequence) -> Result<(), EngineError> {
        let (table, lease) = (&seq.block_table[..], self.lease(seq));
        if table == lease {
            return Ok(());
        }
        let same = table.iter().zip(lease).take_while(|(a, b)| a == b).count();
        let at = |ids: &[u32]| ids.get(same).map_or_else(|| "none".to_owned(), u32::to_string);
        let got = format!(
            "a block table of {} where the pool gave it {}; at index {same} it has block {}, the pool gave it {}",
            table.len(),
            lease.len(),
            at(table),
            at(lease)
        );
        let needs = "a block table of blocks in use by this very sequence, as the pool gave them to it";
        Err(EngineError::Precondition { method, needs, got })
    }

    /// Records that the sequence's block table is what this pool gave it.
    fn record(&mut self, seq: &mut Sequence) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if seq.block_table.is_empty() {
            return;
        }
        let holder = *seq.holder.get_or_insert_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
        match self.leases.entry(holder) {
            Entry::Occupied(mut lease) => lease.get_mut().clone_from(&seq.block_table),
            Entry::Vacant(lease) => {
                lease.insert(seq.block_table.clone());
            }
        }
    }

    /// Checks that the sequence is cut into blocks of the pool's size.
    ///
    /// # Errors
    /// [`EngineError::BlockSizeMismatch`] where it is not.
    pub fn check_block_size(&self, seq: &Sequence) -> Result<(), EngineError> {
        let (expected, got) = (self.block_size(), seq.block_size());
        if expected == got { Ok(()) } else { Err(EngineError::BlockSizeMismatch { expected, got }) }
    }

    fn check_tokens(&self, method: &'static str, seq: &Sequence) -> Result<(), EngineError> {
        if !seq.has_tokens() {
            let got = "one pickled for decoding".to_owned();
            return Err(EngineError::Precondition { method, needs: "a sequence with all its tokens", got });
        }
        self.check_block_size(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::by_hand::sequence::{SequenceState, StateTokens};
    use crate::sampling_params::SamplingParams;

    fn sequence(tokens: &[u32]) -> Sequence {
        Sequence::new(0, tokens.to_vec(), SamplingParams::default(), 2).unwrap()
    }

    fn refusal(result: Result<(), EngineError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn what_holds_goes_through() {
        let mut pool = BlockManager::new(3, 2).unwrap();
        let mut seq = sequence(&[1, 2, 3]);
        assert_eq!(pool.can_allocate_checked(&mut seq).unwrap(), Some(0));
        pool.allocate_checked(&mut seq, 0).unwrap();
        seq.num_scheduled_tokens = 3;
        pool.hash_blocks_checked(&seq).unwrap();
        (seq.num_cached_tokens, seq.num_scheduled_tokens) = (3, 0);
        seq.append_token(4);
        seq.append_token(5);
        pool.may_append_checked(&mut seq).unwrap();
        assert_eq!(seq.block_table, [0, 1, 2]);
        pool.deallocate_checked(&mut seq).unwrap();
        assert_eq!((pool.num_free_blocks(), pool.hash_to_block_id().len()), (3, 1));
    }

    #[test]
    fn what_does_not_is_named_and_changes_nothing() {
        let mut pool = BlockManager::new(2, 2).unwrap();
        let mut seq = sequence(&[1, 2, 3]);
        assert!(refusal(pool.allocate_checked(&mut seq, 1)).contains("can_allocate"));
        pool.allocate_checked(&mut seq, 0).unwrap();
        assert!(refusal(pool.allocate_checked(&mut seq, 0)).contains("without blocks"));
        assert!(refusal(pool.may_append_checked(&mut seq)).contains("free block"));
        seq.num_scheduled_tokens = 4;
        assert!(refusal(pool.hash_blocks_checked(&seq)).contains("0 + 4 of 3"));
        seq.num_cached_tokens = usize::MAX;
        assert!(refusal(pool.hash_blocks_checked(&seq)).contains("of 3"));
        (seq.num_cached_tokens, seq.num_scheduled_tokens) = (0, 3);
        seq.block_table = vec![9];
        assert!(refusal(pool.hash_blocks_checked(&seq)).contains("0 for 1 full blocks"));
        for table in [vec![9], vec![0, 0], vec![u32::MAX]] {
            seq.block_table = table;
            assert!(refusal(pool.deallocate_checked(&mut seq)).contains("blocks in use"));
        }
        assert_eq!((pool.num_free_blocks(), pool.hash_to_block_id().len()), (0, 0));
    }

    #[test]
    fn other_block_sizes_and_unknown_tokens_are_refused() {
        let mut pool = BlockManager::new(4, 3).unwrap();
        let mut seq = sequence(&[1, 2, 3]);
        assert!(matches!(pool.can_allocate_checked(&mut seq), Err(EngineError::BlockSizeMismatch { .. })));
        assert!(matches!(pool.may_append_checked(&mut seq), Err(EngineError::BlockSizeMismatch { .. })));
        let state = SequenceState { tokens: StateTokens::Last(3), ..seq.state() };
        let mut seq = Sequence::from_state(state, 3).unwrap();
        assert!(refusal(pool.allocate_checked(&mut seq, 0)).contains("all its tokens"));
        assert!(refusal(pool.hash_blocks_checked(&seq)).contains("all its tokens"));
    }
}
