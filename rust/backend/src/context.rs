//! What attention and the KV cache must know of a step: nano-vLLM's `utils/context` as an argument, never a global.

/// The ragged batch of one slice of a step, prefill and decode alike.
///
/// Rows `cu_seqlens_q[s]..cu_seqlens_q[s + 1]` are consecutive tokens of sequence `s`, and the last of them stands at
/// position `context_lens[s] - 1`. A decoding sequence has one row, a prefill the rows of its chunk. Keys and values
/// are stored through `slot_mapping` and read through `block_tables`, those of the rows themselves included: position
/// `p` of sequence `s` is in block `block_table(s)[p / block_size]`, at offset `p % block_size`.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Where each sequence's rows begin and the last one's end, `[num_seqs + 1]`, starting at 0.
    pub cu_seqlens_q: &'a [u32],
    /// Tokens of each sequence in the cache once this slice is stored, `[num_seqs]`.
    pub context_lens: &'a [u32],
    /// Cache slot of each row (`block * block_size + offset`), `[rows]`; -1 stores nothing, the others are distinct.
    pub slot_mapping: &'a [i32],
    /// The block table of each sequence, its blocks in order, `[num_seqs, table_stride]`, padded with -1. A block that
    /// lies before the window of every row may be -1 too.
    pub block_tables: &'a [i32],
    /// Entries in each of `block_tables`, padding included.
    pub table_stride: usize,
}

impl Context<'_> {
    /// Sequences in the batch.
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// Rows of all sequences together.
    pub fn num_rows(&self) -> usize {
        self.slot_mapping.len()
    }

    /// The block table of sequence `s`.
    pub fn block_table(&self, s: usize) -> &[i32] {
        &self.block_tables[s * self.table_stride..(s + 1) * self.table_stride]
    }
}
