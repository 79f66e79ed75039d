//! The block manager's methods for sequences that a program looks after itself. A sequence in the wrong state is an error
//! and changes nothing, where nano-vLLM asserts or goes on with broken books.

use crate::block_manager::BlockManager;
use crate::errors::EngineError;
use crate::sequence::Sequence;

impl BlockManager {
    /// [`can_allocate`](Self::can_allocate) for any sequence.
    ///
    /// # Errors
    /// [`EngineError::BlockSizeMismatch`]; [`EngineError::Precondition`] for a sequence whose tokens are not known.
    pub fn can_allocate_checked(&self, seq: &mut Sequence) -> Result<Option<usize>, EngineError> {
        self.check_tokens("can_allocate", seq)?;
        Ok(self.can_allocate(seq))
    }

    /// [`allocate`](Self::allocate) for any sequence.
    ///
    /// # Errors
    /// Those of [`can_allocate_checked`](Self::can_allocate_checked); [`EngineError::Precondition`] when the sequence holds
    /// blocks already or the pool cannot give it this many.
    pub fn allocate_checked(&mut self, seq: &mut Sequence, num_cached_blocks: usize) -> Result<(), EngineError> {
        let method = "allocate";
        self.check_tokens(method, seq)?;
        if !seq.block_table.is_empty() {
            let got = format!("a block table of {}", seq.block_table.len());
            return Err(EngineError::Precondition { method, needs: "a sequence without blocks", got });
        }
        if !self.allocate(seq, num_cached_blocks) {
            let got = format!(
                "{num_cached_blocks} cached of {} blocks, with {} free",
                seq.num_blocks(),
                self.num_free_blocks()
            );
            return Err(EngineError::Precondition { method, needs: "the number can_allocate returned", got });
        }
        Ok(())
    }

    /// [`deallocate`](Self::deallocate) for any sequence.
    ///
    /// # Errors
    /// [`EngineError::Precondition`] for a block table whose blocks are not in use.
    pub fn deallocate_checked(&mut self, seq: &mut Sequence) -> Result<(), EngineError> {
        let mut table = seq.block_table.clone();
        table.sort_unstable();
        for uses in table.chunk_by(|a, b| a == b) {
            let held = self.blocks().get(uses[0] as usize).map_or(0, |block| block.ref_count as usize);
            if held < uses.len() {
                let got = format!("block {} {} times, in use {held} times", uses[0], uses.len());
                let needs = "a block table of blocks in use";
                return Err(EngineError::Precondition { method: "deallocate", needs, got });
            }
        }
        self.deallocate(seq);
        Ok(())
    }

    /// [`may_append`](Self::may_append) for any sequence.
    ///
    /// # Errors
    /// [`EngineError::BlockSizeMismatch`]; [`EngineError::Precondition`] when the pool has no block left.
    pub fn may_append_checked(&mut self, seq: &mut Sequence) -> Result<(), EngineError> {
        self.check_block_size(seq)?;
        if self.may_append(seq) {
            return Ok(());
        }
        let got = "a pool without one".to_owned();
        Err(EngineError::Precondition { method: "may_append", needs: "a free block", got })
    }

    /// [`hash_blocks`](Self::hash_blocks) for any sequence.
    ///
    /// # Errors
    /// Those of [`can_allocate_checked`](Self::can_allocate_checked); [`EngineError::Precondition`] when cached and
    /// scheduled tokens are more than the sequence has, or its block table does not cover them.
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
        self.hash_blocks(seq);
        Ok(())
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
