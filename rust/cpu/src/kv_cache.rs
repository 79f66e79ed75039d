//! The paged key/value cache, laid out for attention.
//!
//! A block holds, for each layer and key/value head, its tokens' keys interleaved in panels of 16 and its values by token. One
//! vector load then covers a dimension (f32) or a pair of dimensions (bf16) of the keys of 16 tokens:
//!
//! - keys, f32: `[token / 16][dim][token % 16]`; bf16: `[token / 16][dim / 2][token % 16][dim % 2]`;
//! - values: `[token][dim]`, a row padded with zeros to a multiple of 16.
//!
//! Blocks are outermost, so that memory is touched in proportion to the blocks in use. Within one, layers follow each other,
//! each with the heads it has; a layer that shares another's cache has no place of its own.

mod layout;
mod writer;

use std::marker::PhantomData;

use half::bf16;
use nanovllm_backend::{BlockCopy, DType, Error, HeadLayout, KvCacheSpec, KvHeads, Result};

use crate::buffer::Buffer;
use crate::claims::Claims;
use crate::kernels::generic::cached::PANEL;
use crate::kernels::table::{AttentionKernels, CacheKernels};
use crate::team::Team;
use layout::{CacheLayout, LayerLayout};

pub(crate) use writer::LayerWriter;

/// The keys and values of all layers.
pub struct KvCache {
    spec: KvCacheSpec,
    layers: Vec<LayerLayout>,
    kernels: CacheKernels,
    keys: Buffer<u8>,
    values: Buffer<u8>,
}

/// What one layer of a cache reads.
#[derive(Clone, Copy)]
pub(crate) struct LayerView<'a> {
    pub(crate) layout: &'a LayerLayout,
    keys: &'a [u8],
    values: &'a [u8],
}

impl<'a> LayerView<'a> {
    /// The keys and the values of a block and head, in this module's layout.
    pub(crate) fn block(&self, block: usize, head: usize) -> (&'a [u8], &'a [u8]) {
        let (keys, values) = self.layout.at(block, head);
        (&self.keys[keys..][..self.layout.key_bytes()], &self.values[values..][..self.layout.value_bytes()])
    }

    /// Panics unless the layer's heads are those of `heads`.
    pub(crate) fn check_heads(&self, heads: &HeadLayout) {
        let KvHeads { num_kv_heads, head_dim } = self.layout.heads;
        assert_eq!((num_kv_heads, head_dim), (heads.num_kv_heads, heads.head_dim), "heads of the KV cache");
    }
}

impl KvCache {
    /// A zeroed cache that `kernels` read and write; memory is mapped when first touched.
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`] for a type other than F32 and Bf16; those of [`KvCacheSpec::check`];
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(spec: &KvCacheSpec, kernels: &AttentionKernels) -> Result<Self> {
        let dtype = spec.dtype;
        if dtype != DType::F32 && dtype != DType::Bf16 {
            return Err(Error::UnsupportedDType { device: "cpu", what: "the KV cache", dtype });
        }
        spec.check()?;
        let Some(CacheLayout { layers, key_bytes, value_bytes }) = CacheLayout::new(spec) else {
            let reason = "larger than the address space".into();
            return Err(Error::OutOfMemory { what: "the KV cache", bytes: usize::MAX, reason });
        };
        Ok(Self {
            spec: spec.clone(),
            layers,
            kernels: *kernels.of(dtype),
            keys: Buffer::zeroed(key_bytes, "the keys of the KV cache")?,
            values: Buffer::zeroed(value_bytes, "the values of the KV cache")?,
        })
    }

    /// What the cache was made from.
    pub fn spec(&self) -> &KvCacheSpec {
        &self.spec
    }

    /// What `layer` reads.
    pub(crate) fn layer(&self, layer: usize) -> LayerView<'_> {
        assert!(layer < self.layers.len(), "layer {layer} of a cache of {}", self.layers.len());
        LayerView { layout: &self.layers[layer], keys: self.keys.as_slice(), values: self.values.as_slice() }
    }

    /// Copies one block of what a layer reads out in nano-vLLM's plain layout: keys and values, each
    /// `[block_size, num_kv_heads, head_dim]`.
    pub fn copy_block(&self, layer: usize, block: usize) -> (Vec<f32>, Vec<f32>) {
        let view = self.layer(layer);
        let layout = view.layout;
        let KvHeads { num_kv_heads, head_dim } = layout.heads;
        let mut out = (Vec::new(), Vec::new());
        for token in 0..layout.block_size {
            for head in 0..num_kv_heads {
                let (keys, values) = view.block(block, head);
                let (keys, values) = (&keys[layout.key_offset(token)..], &values[token * layout.value_row_bytes()..]);
                out.0.extend((0..head_dim).map(|d| match layout.element {
                    2 => element(layout, keys, d / 2 * 2 * PANEL + d % 2),
                    _ => element(layout, keys, d * PANEL),
                }));
                out.1.extend((0..head_dim).map(|d| element(layout, values, d)));
            }
        }
        out
    }

    /// Copies out what a layer reads, as [`Inspect::read_kv_cache`](nanovllm_backend::Inspect::read_kv_cache) says.
    pub(crate) fn copy_layer(&self, layer: usize) -> (Vec<f32>, Vec<f32>) {
        let len = self.spec.layer_len(layer);
        let (mut keys, mut values) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for block in 0..self.spec.num_blocks {
            let (block_keys, block_values) = self.copy_block(layer, block);
            keys.extend(block_keys);
            values.extend(block_values);
        }
        (keys, values)
    }

    /// Overwrites what a layer reads, as [`Inspect::write_kv_cache`](nanovllm_backend::Inspect::write_kv_cache) says.
    pub(crate) fn write_layer(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let expected = self.spec.layer_len(layer);
        for (what, data) in [("keys of the KV cache", keys), ("values of the KV cache", values)] {
            if data.len() != expected {
                return Err(Error::Shape { what, expected, got: data.len() });
            }
        }
        let writer = self.writer(layer);
        let width = writer.layout.heads.size().max(1);
        for (slot, (k, v)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
            // SAFETY: nobody else holds the cache.
            unsafe { writer.store(slot, k, v) };
        }
        Ok(())
    }

    /// A view for threads that write different slots of what `layer` reads.
    pub(crate) fn writer(&mut self, layer: usize) -> LayerWriter<'_> {
        let layout = *self.layer(layer).layout;
        let (keys, values) = (self.keys.as_mut_ptr(), self.values.as_mut_ptr());
        LayerWriter { layout, kernels: self.kernels, keys, values, cache: PhantomData }
    }

    /// Copies tokens from block to block over the team, one copy after another.
    pub(crate) fn copy_blocks(&mut self, team: &Team, copies: &[BlockCopy]) {
        let stores: Vec<usize> =
            (0..self.layers.len()).filter(|&layer| self.spec.owner(layer) == Some(layer)).collect();
        let (kernels, keys, values) = (self.kernels, self.keys.as_mut_ptr(), self.values.as_mut_ptr());
        let layers = &self.layers;
        let writer = |layer: usize| LayerWriter { layout: layers[layer], kernels, keys, values, cache: PhantomData };
        let writers: Vec<LayerWriter<'_>> = stores.into_iter().map(writer).collect();
        let claims = Claims::new(writers.len());
        team.run(|_| {
            while let Some(claimed) = claims.take(1) {
                for writer in &writers[claimed] {
                    // SAFETY: each layer is claimed once, and what another one stores lies elsewhere.
                    copies.iter().for_each(|&copy| unsafe { writer.copy(copy) });
                }
            }
        });
    }
}

/// Element `i` of `bytes`, which are elements of the cache's type.
fn element(layout: &LayerLayout, bytes: &[u8], i: usize) -> f32 {
    if layout.element == 2 {
        bytemuck::pod_read_unaligned::<bf16>(&bytes[2 * i..2 * i + 2]).to_f32()
    } else {
        bytemuck::pod_read_unaligned(&bytes[4 * i..4 * i + 4])
    }
}

#[cfg(test)]
pub(crate) mod tests;
