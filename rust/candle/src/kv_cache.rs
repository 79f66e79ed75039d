//! The paged key/value cache as candle tensors.

use std::ops::Range;

use candle_core::{Device, Tensor};
use nanovllm_backend::{BlockCopy, DType, Error, KvCacheSpec, KvHeads, LayerCache, Result};

use crate::error::{NAME, device_error};
use crate::memory::{out_of_memory, zeros};

/// The paged cache of all layers.
pub struct KvCache {
    spec: KvCacheSpec,
    /// candle's name for the type of keys and values.
    dtype: candle_core::DType,
    layers: Vec<Layer>,
}

/// What one layer reads: keys and values, each `[num_blocks * block_size, num_kv_heads * head_dim]`; a row is a slot.
///
/// A clone is another handle to the same storage, which is written in place: a layer that shares an earlier one's is a
/// clone of it.
#[derive(Clone)]
struct Layer {
    heads: KvHeads,
    keys: Tensor,
    values: Tensor,
}

impl KvCache {
    /// A zeroed cache; memory is mapped when first touched.
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`] for a type other than F32 and Bf16; [`Error::OutOfMemory`]; those of
    /// [`KvCacheSpec::check`].
    pub(crate) fn new(device: &Device, spec: &KvCacheSpec) -> Result<Self> {
        let dtype = match spec.dtype {
            DType::F32 => candle_core::DType::F32,
            DType::Bf16 => candle_core::DType::BF16,
            dtype => return Err(Error::UnsupportedDType { device: NAME, what: "the KV cache", dtype }),
        };
        spec.check()?;
        let bytes = spec.block_bytes().saturating_mul(spec.num_blocks);
        let mut layers: Vec<Layer> = Vec::new();
        if isize::try_from(bytes).is_err() || layers.try_reserve_exact(spec.layers.len()).is_err() {
            return Err(out_of_memory(bytes, "the KV cache"));
        }
        // These products do not overflow where `bytes` does not, unless there are no blocks or heads: the tensors are
        // then empty.
        let slots = spec.num_blocks.saturating_mul(spec.block_size);
        for kind in &spec.layers {
            layers.push(match *kind {
                LayerCache::Full(heads) | LayerCache::SlidingWindow { heads, .. } => {
                    let side = || match spec.dtype {
                        DType::F32 => zeros::<f32>(device, &[slots, heads.size()], "the KV cache"),
                        _ => zeros::<half::bf16>(device, &[slots, heads.size()], "the KV cache"),
                    };
                    Layer { heads, keys: side()?, values: side()? }
                }
                LayerCache::Shared(with) => layers[with].clone(),
            });
        }
        Ok(Self { spec: spec.clone(), dtype, layers })
    }

    /// The description that the cache was made from.
    pub fn spec(&self) -> &KvCacheSpec {
        &self.spec
    }

    /// Stores row `i` of `keys` and `values`, each `[rows, num_kv_heads * head_dim]`, at slot `slots[i]` of `layer`; -1
    /// stores nothing.
    pub(crate) fn store(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
        slots: &[i32],
    ) -> candle_core::Result<()> {
        let device = keys.device();
        let stored = || (0u32..).zip(slots).filter_map(|(row, &slot)| Some((row, u32::try_from(slot).ok()?)));
        let count = stored().count();
        if count == 0 {
            return Ok(());
        }
        let (rows, slots_of_rows): (Vec<u32>, Vec<u32>) = stored().unzip();
        let rows = (count < slots.len()).then(|| Tensor::new(rows, device)).transpose()?;
        let width = keys.dim(1)?;
        let index = Tensor::from_vec(slots_of_rows, (count, 1), device)?.broadcast_as((count, width))?.contiguous()?;
        let Layer { keys: to_keys, values: to_values, .. } = &self.layers[layer];
        for (from, to) in [(keys, to_keys), (values, to_values)] {
            let from = from.contiguous()?;
            let from = if let Some(rows) = &rows { from.index_select(rows, 0)? } else { from };
            to.scatter_set(&index, &from.to_dtype(self.dtype)?, 0)?;
        }
        Ok(())
    }

    /// Copies tokens from block to block, in every layer, one copy after another.
    pub(crate) fn copy_blocks(&mut self, copies: &[BlockCopy]) -> candle_core::Result<()> {
        let block_size = self.spec.block_size;
        let stores = |layer: &usize| self.spec.owner(*layer) == Some(*layer);
        for Layer { keys, values, .. } in (0..self.layers.len()).filter(stores).map(|layer| &self.layers[layer]) {
            for &BlockCopy { from, to, num_tokens } in copies.iter().filter(|copy| copy.num_tokens > 0) {
                for x in [keys, values] {
                    // `copy` takes what is copied out of the storage that is written.
                    let tokens = x.narrow(0, from as usize * block_size, num_tokens as usize)?.copy()?;
                    x.slice_set(&tokens, 0, to as usize * block_size)?;
                }
            }
        }
        Ok(())
    }

    /// The keys and values of the tokens at `positions` of a sequence in f32, each `[positions, num_kv_heads, head_dim]`.
    pub(crate) fn gather(
        &self,
        layer: usize,
        table: &[i32],
        positions: Range<usize>,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let KvCacheSpec { num_blocks, block_size, .. } = self.spec;
        let Layer { heads: KvHeads { num_kv_heads, head_dim }, keys, values } = &self.layers[layer];
        let held = positions.start / block_size..positions.end.div_ceil(block_size);
        let blocks = table.get(held.clone()).unwrap_or_default().iter();
        let blocks: Option<Vec<u32>> = blocks.map(|&block| u32::try_from(block).ok()).collect();
        let Some(blocks) = blocks.filter(|blocks| blocks.len() == held.len()) else {
            candle_core::bail!("a block table without all of the blocks {held:?} for the tokens {positions:?}");
        };
        let blocks = Tensor::new(blocks, keys.device())?;
        // Whole blocks are selected, then cut: the last may hold anything past the sequence, and the first before a window.
        let of = |x: &Tensor| {
            let x = x.reshape((num_blocks, block_size * num_kv_heads * head_dim))?.index_select(&blocks, 0)?;
            let x = x.reshape((held.len() * block_size, *num_kv_heads, *head_dim))?;
            let x = x.narrow(0, positions.start - held.start * block_size, positions.len())?;
            x.to_dtype(candle_core::DType::F32)
        };
        Ok((of(keys)?, of(values)?))
    }

    /// A layer in f32, as [`Inspect::read_kv_cache`](nanovllm_backend::Inspect::read_kv_cache) says.
    pub(crate) fn read(&self, layer: usize) -> candle_core::Result<(Vec<f32>, Vec<f32>)> {
        let of = |x: &Tensor| x.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1();
        let Layer { keys, values, .. } = &self.layers[layer];
        Ok((of(keys)?, of(values)?))
    }

    /// Overwrites a layer, as [`Inspect::write_kv_cache`](nanovllm_backend::Inspect::write_kv_cache) says.
    pub(crate) fn write(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let expected = self.spec.layer_len(layer);
        for (what, data) in [("keys of the KV cache", keys), ("values of the KV cache", values)] {
            if data.len() != expected {
                return Err(Error::Shape { what, expected, got: data.len() });
            }
        }
        let Layer { keys: to_keys, values: to_values, .. } = &self.layers[layer];
        for (from, to) in [(keys, to_keys), (values, to_values)].into_iter().filter(|(from, _)| !from.is_empty()) {
            Tensor::from_slice(from, to.shape(), to.device())
                .and_then(|from| to.slice_set(&from.to_dtype(self.dtype)?, 0, 0))
                .map_err(|e| device_error(&e))?;
        }
        Ok(())
    }
}
