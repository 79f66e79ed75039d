//! The KV pool's books: which blocks are free, who shares the others, and which hold a known prefix.

use crate::block_hash::compute_hash;
use crate::errors::EngineError;
use crate::free_list::FreeList;
use crate::sequence::Sequence;
use nanovllm_backend::BlockCopy;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What is known of one block of the KV pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// Number of block tables that hold it; 0 for a free block.
    pub ref_count: u32,
    /// Chained hash of its contents once it is full. It outlives the block's release, until the block is handed out anew.
    pub hash: Option<u64>,
    /// The tokens the hash was computed from.
    pub token_ids: Vec<u32>,
}

/// Allocates blocks to sequences, sharing those whose prefix is already computed.
///
/// A scheduler moves the blocks of its own sequences. The public methods are for sequences that a program looks after, which
/// need not be what they say, so each is checked: nobody gives back or fills a block that another sequence holds.
#[derive(Debug)]
pub struct BlockManager {
    block_size: usize,
    blocks: Vec<Block>,
    hash_to_block_id: HashMap<u64, u32>,
    free: FreeList,
    /// The blocks that [`allocate`](Self::allocate) finds in the prefix cache; kept for its memory alone.
    hits: Vec<u32>,
    /// The blocks of sequences that no scheduler has, by their [`holder`](Sequence::holder): such a sequence has a block table
    /// that a program can set, so it is asked here what is its own.
    pub(crate) leases: HashMap<u64, Vec<u32>>,
}

impl BlockManager {
    /// A pool of free blocks.
    ///
    /// # Errors
    /// [`EngineError::BlockTablesTooLarge`] when the books themselves do not fit in memory.
    pub fn new(num_blocks: usize, block_size: usize) -> Result<Self, EngineError> {
        let too_large = EngineError::BlockTablesTooLarge { num_blocks };
        let mut blocks = Vec::new();
        if num_blocks >= u32::MAX as usize || blocks.try_reserve_exact(num_blocks).is_err() {
            return Err(too_large);
        }
        blocks.resize(num_blocks, Block::default());
        let Some(free) = FreeList::full(num_blocks) else { return Err(too_large) };
        Ok(Self {
            block_size,
            blocks,
            hash_to_block_id: HashMap::new(),
            free,
            hits: Vec::new(),
            leases: HashMap::new(),
        })
    }

    /// How many leading blocks the prefix cache has, if the pool can take the sequence now; `None` if it cannot. The last
    /// block is never looked up, so at least one token is left to compute.
    pub(crate) fn can_allocate(&self, seq: &mut Sequence) -> Option<usize> {
        let mut num_cached_blocks = 0;
        let mut num_new_blocks = seq.num_blocks();
        // Rows that something is asked of have to be computed.
        let reusable = if seq.needs_whole_prompt() { 0 } else { seq.num_blocks().saturating_sub(1) };
        for i in 0..reusable {
            let Some(&id) = self.hash_to_block_id.get(&seq.prefix_hash(i)) else { break };
            let block = &self.blocks[id as usize];
            // Two prefixes may have the same hash, so the tokens decide.
            if block.token_ids != seq.block(i) {
                break;
            }
            num_cached_blocks += 1;
            if block.ref_count > 0 {
                num_new_blocks -= 1;
            }
        }
        (num_new_blocks <= self.free.len()).then_some(num_cached_blocks)
    }

    /// Gives the sequence its blocks, the first `num_cached_blocks` from the prefix cache.
    ///
    /// False, with nothing changed, when it holds blocks already or the pool is not as
    /// [`can_allocate`](Self::can_allocate) found it.
    #[must_use]
    pub(crate) fn allocate(&mut self, seq: &mut Sequence, num_cached_blocks: usize) -> bool {
        if !seq.block_table.is_empty() || num_cached_blocks >= seq.num_blocks() {
            return false;
        }
        self.hits.clear();
        let mut num_shared = 0;
        for i in 0..num_cached_blocks {
            let Some(&id) = self.hash_to_block_id.get(&seq.prefix_hash(i)) else { return false };
            num_shared += usize::from(self.blocks[id as usize].ref_count > 0);
            self.hits.push(id);
        }
        if seq.num_blocks() - num_shared > self.free.len() {
            return false;
        }
        for &id in &self.hits {
            let block = &mut self.blocks[id as usize];
            if block.ref_count == 0 {
                self.free.remove(id);
            }
            block.ref_count += 1;
            seq.block_table.push(id);
        }
        for _ in num_cached_blocks..seq.num_blocks() {
            seq.block_table.extend(self.allocate_block());
        }
        seq.num_cached_tokens = num_cached_blocks * self.block_size;
        true
    }

    /// Gives the sequence, which holds none, the blocks of another that has the same tokens.
    pub(crate) fn share(&mut self, block_table: Vec<u32>, seq: &mut Sequence) {
        for &id in &block_table {
            self.blocks[id as usize].ref_count += 1;
        }
        seq.block_table = block_table;
    }

    /// Copy on write: gives the sequence a block of its own in place of its last one if that is another's, too. What the new block
    /// is to hold is appended to `copies`. False when there is no free block.
    #[must_use]
    pub(crate) fn own_last_block(&mut self, seq: &mut Sequence, copies: &mut Vec<BlockCopy>) -> bool {
        let Some(last) = seq.block_table.last_mut() else { return true };
        if self.blocks[*last as usize].ref_count == 1 {
            return true;
        }
        let Some(to) = self.allocate_block() else { return false };
        let from = std::mem::replace(last, to);
        self.release(from);
        // All but the newest token, which the next step computes.
        copies.push(BlockCopy { from, to, num_tokens: seq.last_block_num_tokens() as u32 - 1 });
        true
    }

    /// Takes the sequence's blocks back, the last one first; those no other table holds become free but keep their hash.
    pub(crate) fn deallocate(&mut self, seq: &mut Sequence) {
        while let Some(id) = seq.block_table.pop() {
            self.release(id);
        }
        seq.num_cached_tokens = 0;
    }

    /// How many of the sequence's blocks nobody else has.
    pub(crate) fn num_own_blocks(&self, seq: &Sequence) -> usize {
        seq.block_table.iter().filter(|&&id| self.blocks[id as usize].ref_count == 1).count()
    }

    /// Whether the pool has the block that the sequence's newest token may need.
    pub(crate) fn can_append(&self, seq: &Sequence) -> bool {
        self.free.len() >= usize::from(self.opens_block(seq))
    }

    /// Gives the sequence another block if its newest token opens one. False when that block cannot be had.
    #[must_use]
    pub(crate) fn may_append(&mut self, seq: &mut Sequence) -> bool {
        if !self.opens_block(seq) {
            return true;
        }
        let id = self.allocate_block();
        seq.block_table.extend(id);
        id.is_some()
    }

    /// Takes back the block that [`may_append`](Self::may_append) has given for a step that then failed.
    pub(crate) fn undo_append(&mut self, seq: &mut Sequence) {
        if self.opens_block(seq)
            && let Some(id) = seq.block_table.pop()
        {
            self.release(id);
        }
    }

    /// Enters the blocks that the scheduled tokens have filled into the prefix cache; called once they are computed.
    pub(crate) fn hash_blocks(&mut self, seq: &Sequence) {
        let start = seq.num_cached_tokens / self.block_size;
        let end = (seq.num_cached_tokens + seq.num_scheduled_tokens) / self.block_size;
        if start == end {
            return;
        }
        let mut prefix = start.checked_sub(1).and_then(|last| self.blocks[seq.block_table[last] as usize].hash);
        for i in start..end {
            let id = seq.block_table[i];
            let block = &mut self.blocks[id as usize];
            let hash = compute_hash(seq.block(i), prefix);
            block.hash = Some(hash);
            block.token_ids.clear();
            block.token_ids.extend_from_slice(seq.block(i));
            // A later copy of the same prefix takes the entry over, as in nano-vLLM.
            self.hash_to_block_id.insert(hash, id);
            prefix = Some(hash);
        }
    }

    /// Whether the newest token is the first of a block, which the sequence does not have yet: nano-vLLM's test.
    fn opens_block(&self, seq: &Sequence) -> bool {
        seq.num_tokens() % self.block_size == 1
    }

    fn allocate_block(&mut self) -> Option<u32> {
        let id = self.free.pop_front()?;
        let block = &mut self.blocks[id as usize];
        debug_assert_eq!(block.ref_count, 0, "block {id} was free and in use");
        if let Some(hash) = block.hash.take()
            && let Entry::Occupied(entry) = self.hash_to_block_id.entry(hash)
            && *entry.get() == id
        {
            entry.remove();
        }
        block.ref_count = 1;
        block.token_ids.clear();
        Some(id)
    }

    fn release(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        assert!(block.ref_count > 0, "a block is given back by whoever holds it, and block {id} was free");
        block.ref_count -= 1;
        if block.ref_count == 0 {
            self.free.push_back(id);
        }
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks in the pool.
    pub fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that no sequence holds.
    pub fn num_free_blocks(&self) -> usize {
        self.free.len()
    }

    /// Every block, by id.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Ids of the free blocks, the next to be handed out first.
    pub fn free_block_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.free.iter()
    }

    /// Ids of the blocks in use, ascending.
    pub fn used_block_ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.blocks).filter(|(_, block)| block.ref_count > 0).map(|(id, _)| id)
    }

    /// The prefix cache: chained hash to block id.
    pub fn hash_to_block_id(&self) -> &HashMap<u64, u32> {
        &self.hash_to_block_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling_params::SamplingParams;

    fn sequence(tokens: &[u32]) -> Sequence {
        Sequence::new(0, tokens.to_vec(), SamplingParams::default(), 2).unwrap()
    }

    /// A pool whose block 0 holds the computed prefix `[1, 2]`, no longer in use.
    fn pool_with_prefix() -> BlockManager {
        let mut pool = BlockManager::new(4, 2).unwrap();
        let mut seq = sequence(&[1, 2, 3]);
        assert!(pool.allocate(&mut seq, 0));
        seq.num_scheduled_tokens = 3;
        pool.hash_blocks(&seq);
        pool.deallocate(&mut seq);
        pool
    }

    #[test]
    fn a_prefix_is_found_after_release_and_taken_from_the_middle_of_the_queue() {
        let mut pool = pool_with_prefix();
        let mut seq = sequence(&[1, 2, 9]);
        assert_eq!(pool.free_block_ids().collect::<Vec<_>>(), [2, 3, 1, 0]);
        assert_eq!(pool.can_allocate(&mut seq), Some(1));
        assert!(pool.allocate(&mut seq, 1));
        assert_eq!((&seq.block_table[..], seq.num_cached_tokens), (&[0, 2][..], 2));
        assert_eq!(pool.free_block_ids().collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn the_last_block_is_never_looked_up() {
        assert_eq!(pool_with_prefix().can_allocate(&mut sequence(&[1, 2])), Some(0));
    }

    #[test]
    fn a_colliding_hash_is_no_hit() {
        let mut pool = pool_with_prefix();
        pool.blocks[0].token_ids = vec![1, 7];
        assert_eq!(pool.can_allocate(&mut sequence(&[1, 2, 3])), Some(0));
    }

    #[test]
    fn misuse_changes_nothing() {
        let mut pool = pool_with_prefix();
        let mut seq = sequence(&[5, 6, 7]);
        assert!(!pool.allocate(&mut seq, 1), "no such prefix");
        assert!(!pool.allocate(&mut seq, 2), "nothing would be left to compute");
        let mut large = sequence(&[5; 9]);
        assert_eq!(pool.can_allocate(&mut large), None);
        assert!(!pool.allocate(&mut large, 0), "no room");
        assert!(pool.allocate(&mut seq, 0) && !pool.allocate(&mut seq, 0), "it holds blocks already");
        assert_eq!((seq.block_table.len(), pool.num_free_blocks()), (2, 2));
    }

    #[test]
    fn a_full_pool_refuses_to_append() {
        let mut pool = BlockManager::new(1, 2).unwrap();
        let mut seq = sequence(&[1, 2]);
        assert!(pool.allocate(&mut seq, 0));
        assert!(pool.can_append(&seq) && pool.may_append(&mut seq));
        seq.append_token(3);
        assert!(!pool.can_append(&seq) && !pool.may_append(&mut seq));
        assert_eq!(seq.block_table.len(), 1);
    }

    #[test]
    fn an_absurd_pool_is_an_error() {
        assert!(matches!(BlockManager::new(usize::MAX, 2), Err(EngineError::BlockTablesTooLarge { .. })));
    }
}
