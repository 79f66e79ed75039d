//! What attention and the KV cache must know of a step: nano-vLLM's `utils/context` as an argument, never a global.

/// The ragged batch of one slice of a step, prefill and decode alike.
///
/// Rows `cu_seqlens_q[s]..cu_seqlens_q[s + 1]` are consecutive tokens of sequence `s`, and the last of them sits at
/// position `context_lens[s] - 1`; a row attends to every position up to its own. Attention always reads keys and values
/// from the cache, through the block tables.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Row offsets, `[num_seqs + 1]`, starting at 0.
    pub cu_seqlens_q: &'a [u32],
    /// Tokens of each sequence in the cache once this slice is stored, `[num_seqs]`.
    pub context_lens: &'a [u32],
    /// Cache slot of each row (`block * block_size + offset`), `[rows]`; -1 stores nothing, the others are distinct.
    pub slot_mapping: &'a [i32],
    /// Blocks of each sequence in order, `[num_seqs, table_stride]`, padded with -1. Those that no row of the slice sees, as they
    /// lie before its window, may be -1 too.
    pub block_tables: &'a [i32],
    /// Entries in a row of `block_tables`.
    pub table_stride: usize,
}

impl Context<'_> {
    /// Number of sequences.
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.slot_mapping.len()
    }

    /// The block table of sequence `s`.
    pub fn block_table(&self, s: usize) -> &[i32] {
        &self.block_tables[s * self.table_stride..(s + 1) * self.table_stride]
    }
}
