//! Writing into a layer of the cache from several threads.

use std::marker::PhantomData;

use nanovllm_backend::BlockCopy;

use super::layout::LayerLayout;
use crate::kernels::table::CacheKernels;

/// A layer of a cache that several threads of the team write at once, each its own slots. The cache is borrowed meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct LayerWriter<'a> {
    pub(super) layout: LayerLayout,
    pub(super) kernels: CacheKernels,
    pub(super) keys: *mut u8,
    pub(super) values: *mut u8,
    pub(super) cache: PhantomData<&'a mut [u8]>,
}

// SAFETY: the pointers come from a cache borrowed mutably for as long as the team works on it; `store` leaves it to its callers
// that no two threads write the same slot.
unsafe impl Send for LayerWriter<'_> {}
// SAFETY: what a thread does through a shared reference is what it may do through its own copy.
unsafe impl Sync for LayerWriter<'_> {}

impl LayerWriter<'_> {
    /// Stores one token's key and value heads, each `[num_kv_heads, head_dim]`.
    ///
    /// # Safety
    /// No other thread reads or writes this slot meanwhile.
    pub(crate) unsafe fn store(&self, slot: usize, keys: &[f32], values: &[f32]) {
        let LayerLayout { heads, block_size, .. } = self.layout;
        let (block, offset) = (slot / block_size, slot % block_size);
        for head in 0..heads.num_kv_heads {
            let (key, value) = (&keys[head * heads.head_dim..], &values[head * heads.head_dim..]);
            assert!(key.len() >= heads.head_dim && value.len() >= heads.head_dim);
            let (keys_at, values_at) = self.layout.at(block, head);
            // SAFETY: block and head are checked, `offset` is below the block size, and the heads were just measured.
            unsafe {
                let to = self.keys.add(keys_at + self.layout.key_offset(offset));
                (self.kernels.store_key)(key.as_ptr(), heads.head_dim / 2, to);
                let to = self.values.add(values_at + offset * self.layout.value_row_bytes());
                (self.kernels.store_value)(value.as_ptr(), heads.head_dim, to);
            }
        }
    }

    /// Copies the first tokens of a block to another one.
    ///
    /// # Safety
    /// No other thread reads or writes this layer meanwhile.
    pub(crate) unsafe fn copy(&self, copy: BlockCopy) {
        let BlockCopy { from, to, num_tokens } = copy;
        let (from, to, num_tokens) = (from as usize, to as usize, num_tokens as usize);
        assert!(num_tokens <= self.layout.block_size, "{num_tokens} tokens of a block of {}", self.layout.block_size);
        let key_bytes = self.layout.key_bytes_of(num_tokens);
        let value_bytes = num_tokens * self.layout.value_row_bytes();
        for head in 0..self.layout.heads.num_kv_heads {
            let (keys_from, values_from) = self.layout.at(from, head);
            let (keys_to, values_to) = self.layout.at(to, head);
            // SAFETY: blocks and heads are checked, and these are no more bytes than a block and head has.
            unsafe {
                std::ptr::copy(self.keys.add(keys_from), self.keys.add(keys_to), key_bytes);
                std::ptr::copy(self.values.add(values_from), self.values.add(values_to), value_bytes);
            }
        }
    }
}
