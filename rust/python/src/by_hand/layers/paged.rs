//! Attention and stores over plain arrays. A device works on a paged cache, so one is made for each call, as large as the
//! call needs.

use nanovllm_backend::{
    Backend, Context, DType, Error, HeadLayout, HeadNorms, KvCacheSpec, KvHeads, LayerCache, Result,
};
use nanovllm_model::layers::attention::Attention;

use crate::device::download;

/// Tokens in a block of the caches that are made here: nano-vLLM's default.
const BLOCK_SIZE: usize = 256;

/// Which blocks of a cache hold the tokens of a batch's sequences.
pub(crate) struct Tables {
    /// Blocks in the cache.
    pub(crate) num_blocks: usize,
    /// Tokens in a block.
    pub(crate) block_size: usize,
    /// A row of blocks for each sequence, in order, padded with -1.
    pub(crate) entries: Vec<i32>,
    /// Blocks in a row.
    pub(crate) stride: usize,
}

impl Tables {
    /// Tables of these rows.
    pub(crate) fn new(num_blocks: usize, block_size: usize, rows: &[Vec<i32>]) -> Self {
        let stride = rows.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |row: &Vec<i32>| {
            let mut row = row.clone();
            row.resize(stride, -1);
            row
        };
        Self { num_blocks, block_size, entries: rows.iter().flat_map(padded).collect(), stride }
    }

    /// Tables of sequences that lie one after the other, each in blocks of its own. None where slots would not fit i32.
    pub(crate) fn consecutive(context_lens: &[u32]) -> Option<Self> {
        let blocks = |tokens: u32| tokens.div_ceil(BLOCK_SIZE as u32) as i32;
        let mut rows = Vec::with_capacity(context_lens.len());
        let mut next = 0i32;
        for &tokens in context_lens {
            let first = next;
            next = next.checked_add(blocks(tokens))?;
            rows.push((first..next).collect());
        }
        next.checked_mul(BLOCK_SIZE as i32)?;
        Some(Self::new(next as usize, BLOCK_SIZE, &rows))
    }

    /// The slot of a token of a sequence.
    pub(crate) fn slot(&self, seq: usize, token: usize) -> i32 {
        self.entries[seq * self.stride + token / self.block_size] * self.block_size as i32
            + (token % self.block_size) as i32
    }
}

/// The part of a ragged batch that attends to anything.
pub(crate) struct Batch {
    /// Its rows among the caller's.
    rows: Vec<usize>,
    /// Its sequences among the caller's.
    pub(crate) seqs: Vec<usize>,
    /// Offsets of its rows, `[seqs + 1]`.
    pub(crate) cu_seqlens_q: Vec<u32>,
    /// Tokens each of its sequences has in the cache.
    pub(crate) context_lens: Vec<u32>,
}

impl Batch {
    /// Row `cu_seqlens_q[s]` is the first of sequence `s`, which has `context_lens[s]` tokens in the cache. The last row
    /// sits at the last token, so the first rows of a sequence with more rows than tokens see nothing.
    pub(crate) fn new(cu_seqlens_q: &[u32], context_lens: &[u32]) -> Self {
        let mut batch = Self { rows: Vec::new(), seqs: Vec::new(), cu_seqlens_q: vec![0], context_lens: Vec::new() };
        for (s, (offsets, &tokens)) in cu_seqlens_q.windows(2).zip(context_lens).enumerate() {
            let visible = (offsets[1] - offsets[0]).min(tokens);
            if visible > 0 {
                batch.rows.extend((offsets[1] - visible..offsets[1]).map(|row| row as usize));
                batch.seqs.push(s);
                batch.cu_seqlens_q.push(batch.rows.len() as u32);
                batch.context_lens.push(tokens);
            }
        }
        batch
    }

    /// Number of rows that see something.
    pub(crate) fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing of it sees anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Attends from the rows of `q`, `[caller's rows, num_heads * head_dim]`; rows that see nothing give zeros. `tables`
    /// has a row for each of the batch's sequences.
    pub(crate) fn attend<B: Backend>(
        &self,
        backend: &B,
        heads: HeadLayout,
        scale: f64,
        cache: &B::KvCache,
        tables: &Tables,
        q: &[f32],
    ) -> Result<Vec<f32>> {
        let (width, padded, count) = (heads.q_size(), heads.qkv_size(), self.rows.len());
        let mut qkv = zeros(count.saturating_mul(padded))?;
        for (to, &row) in qkv.chunks_exact_mut(padded).zip(&self.rows) {
            to[..width].copy_from_slice(&q[row * width..][..width]);
            // Devices take scales that are not negative.
            if scale < 0.0 {
                to[..width].iter_mut().for_each(|x| *x = -*x);
            }
        }
        let qkv = backend.upload(&qkv, count, padded)?;
        let mut out = backend.tensor(count, width)?;
        let context = Context {
            cu_seqlens_q: &self.cu_seqlens_q,
            context_lens: &self.context_lens,
            slot_mapping: &vec![-1; count],
            block_tables: &tables.entries,
            table_stride: tables.stride,
        };
        Attention { scale: scale.abs(), ..Attention::plain(heads, 0) }
            .attend(backend, &qkv, None, cache, &context, &mut out);
        let attended = download(backend, &out)?;
        let mut out = zeros(q.len())?;
        for (from, &row) in attended.chunks_exact(width).zip(&self.rows) {
            out[row * width..][..width].copy_from_slice(from);
        }
        Ok(out)
    }
}

/// A cache of one layer with the blocks that `tables` refers to.
pub(crate) fn cache<B: Backend>(backend: &B, heads: HeadLayout, tables: &Tables, dtype: DType) -> Result<B::KvCache> {
    let (HeadLayout { num_kv_heads, head_dim, .. }, &Tables { num_blocks, block_size, .. }) = (heads, tables);
    let layers = vec![LayerCache::Full(KvHeads { num_kv_heads, head_dim })];
    backend.kv_cache(&KvCacheSpec { num_blocks, block_size, dtype, layers })
}

/// Stores rows of keys and values, each `[slots, num_kv_heads * head_dim]`, as they are: neither normed nor rotated. Slots
/// other than -1 are in range and distinct.
pub(crate) fn store<B: Backend>(
    backend: &B,
    heads: HeadLayout,
    cache: &mut B::KvCache,
    key: &[f32],
    value: &[f32],
    slots: &[i32],
) -> Result<()> {
    // The queries play no part; a cache does not know how many heads they have.
    let heads = HeadLayout { num_heads: heads.num_kv_heads, ..heads };
    let (q, width, padded) = (heads.q_size(), heads.kv_size(), heads.qkv_size());
    let mut qkv = zeros(slots.len().saturating_mul(padded))?;
    for (row, (key, value)) in qkv.chunks_exact_mut(padded).zip(key.chunks_exact(width).zip(value.chunks_exact(width)))
    {
        row[q..q + width].copy_from_slice(key);
        row[q + width..].copy_from_slice(value);
    }
    let mut qkv = backend.upload(&qkv, slots.len(), padded)?;
    let context =
        Context { cu_seqlens_q: &[0], context_lens: &[], slot_mapping: slots, block_tables: &[], table_stride: 0 };
    backend.norm_rope_store(&mut qkv, &heads, &HeadNorms::NONE, None, cache, 0, &context);
    backend.synchronize()
}

fn zeros(len: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|e| Error::OutOfMemory {
        what: "the rows of attention",
        bytes: len.saturating_mul(size_of::<f32>()),
        reason: e.to_string(),
    })?;
    values.resize(len, 0.0);
    Ok(values)
}
