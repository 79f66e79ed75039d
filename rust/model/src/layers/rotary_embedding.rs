//! The table of cosines and sines that rotates queries and keys.

use nanovllm_backend::{Backend, Context, DType, Error, HeadLayout, HeadNorms, KvCacheSpec, KvHeads, LayerCache, Rope};

use crate::config::RopeConfig;
use crate::error::Result;

/// A table of cosines and sines for every position, made once at load.
pub struct RotaryEmbedding<B: Backend> {
    /// `[max_position, width]`: in each row the cosines of the position times each inverse frequency, then the sines.
    pub cos_sin_cache: B::Tensor,
}

impl<B: Backend> RotaryEmbedding<B> {
    /// The table for positions below `max_position` and heads of `head_dim`. Angles are worked out in f64: in f32 those
    /// of far positions lose digits.
    ///
    /// # Errors
    /// [`crate::LoadError::Config`] for a scaling that gives no angles; [`crate::LoadError::Backend`] when memory is short.
    pub fn new(backend: &B, config: &RopeConfig, head_dim: usize, max_position: usize) -> Result<Self> {
        let (inverse, scale) = config.inverse_frequencies(head_dim, max_position)?;
        let width = 2 * inverse.len();
        let (what, len) = ("the rotary table", max_position.saturating_mul(width));
        let mut table = Vec::new();
        table.try_reserve_exact(len).map_err(|e| Error::OutOfMemory {
            what,
            bytes: len.saturating_mul(size_of::<f32>()),
            reason: e.to_string(),
        })?;
        for position in 0..max_position {
            let angles = inverse.iter().map(|f| position as f64 * f);
            table.extend(angles.clone().map(|a| (a.cos() * scale) as f32));
            table.extend(angles.map(|a| (a.sin() * scale) as f32));
        }
        Ok(Self { cos_sin_cache: backend.upload(&table, max_position, width)? })
    }

    /// The table as [`Backend::norm_rope_store`] takes it: row `i` of a batch is rotated by row `positions[i]` of the
    /// table.
    pub fn at<'a>(&'a self, positions: &'a [u32]) -> Rope<'a, B::Tensor> {
        Rope { table: &self.cos_sin_cache, positions }
    }

    /// Rotates heads without storing or attending: `x`, `[rows, num_heads * head_dim]`, row `i` by table row
    /// `positions[i]`, which is in range. The contract has no method for that: the device is given them as queries of
    /// rows whose keys and values are not stored.
    ///
    /// # Errors
    /// [`Error::Shape`] for an odd head dimension or when sizes disagree; [`Error::OutOfMemory`].
    pub fn rotate(
        &self,
        backend: &B,
        x: &[f32],
        num_heads: usize,
        head_dim: usize,
        positions: &[u32],
    ) -> std::result::Result<Vec<f32>, Error> {
        let heads = HeadLayout { num_heads, num_kv_heads: 1, head_dim };
        let (rows, width) = (positions.len(), heads.q_size());
        let mut cache = backend.kv_cache(&KvCacheSpec {
            num_blocks: 1,
            block_size: 1,
            dtype: DType::F32,
            layers: vec![LayerCache::Full(KvHeads { num_kv_heads: 1, head_dim })],
        })?;
        let mut qkv = backend.upload(&padded(x, width, heads.qkv_size(), rows)?, rows, heads.qkv_size())?;
        let context = Context {
            cu_seqlens_q: &[0],
            context_lens: &[],
            slot_mapping: &vec![-1; rows],
            block_tables: &[],
            table_stride: 0,
        };
        backend.norm_rope_store(&mut qkv, &heads, &HeadNorms::NONE, Some(self.at(positions)), &mut cache, 0, &context);
        backend.synchronize()?;
        let mut out = backend.download(&qkv);
        for row in 0..rows {
            out.copy_within(row * heads.qkv_size()..row * heads.qkv_size() + width, row * width);
        }
        out.truncate(rows * width);
        Ok(out)
    }
}

/// Rows of `width` values with zeros appended to each up to `padded_width`.
fn padded(x: &[f32], width: usize, padded_width: usize, rows: usize) -> std::result::Result<Vec<f32>, Error> {
    let expected = rows.saturating_mul(width);
    if x.len() != expected {
        return Err(Error::Shape { what: "values of the heads to rotate", expected, got: x.len() });
    }
    let mut out = Vec::new();
    let len = rows.saturating_mul(padded_width);
    out.try_reserve_exact(len).map_err(|e| Error::OutOfMemory {
        what: "the heads to rotate",
        bytes: len.saturating_mul(size_of::<f32>()),
        reason: e.to_string(),
    })?;
    for row in x.chunks_exact(width.max(1)) {
        out.extend_from_slice(row);
        out.extend(std::iter::repeat_n(0.0, padded_width - width));
    }
    out.resize(len, 0.0);
    Ok(out)
}
