//! The paged key/value cache, laid out for attention.
//!
//! A block holds, for each layer and key/value head, its tokens' keys interleaved in groups of 16 and its values by token. One
//! vector load then covers a dimension (f32) or a pair of dimensions (bf16) of the keys of 16 tokens:
//!
//! - keys, f32: `[token / 16][dim][token % 16]`; bf16: `[token / 16][dim / 2][token % 16][dim % 2]`;
//! - values: `[token][dim]`, a row padded with zeros to a multiple of 16.
//!
//! Blocks are outermost, so that memory is touched in proportion to the blocks in use.

use half::bf16;
use nanovllm_backend::{Context, DType, Error, HeadLayout, KvCacheSpec, Result};

use crate::buffer::Buffer;
use crate::claims::Claims;
use crate::isa::Isa;
use crate::kernels::cached::GROUP;
use crate::kernels::table::{AttentionKernels, CacheKernels, RowKernels};
use crate::team::Team;
use crate::tensor::{SharedMut, Tensor};

/// The keys and values of all layers.
pub struct KvCache {
    layout: CacheLayout,
    kernels: CacheKernels,
    keys: Buffer<u8>,
    values: Buffer<u8>,
}

/// Where things are in a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLayout {
    pub(crate) spec: KvCacheSpec,
    /// Bytes of an element.
    pub(crate) element: usize,
    /// Bytes of the keys of one block, layer and head: whole groups.
    key_bytes: usize,
    /// Bytes of the values of one block, layer and head.
    value_bytes: usize,
}

impl CacheLayout {
    /// Elements of a value row: the head dimension rounded up to 16.
    pub(crate) fn value_stride(&self) -> usize {
        self.spec.head_dim.next_multiple_of(16)
    }

    /// Bytes of the keys of a group of 16 tokens.
    pub(crate) fn group_bytes(&self) -> usize {
        GROUP * self.spec.head_dim * self.element
    }

    /// Bytes of a value row.
    pub(crate) fn value_row_bytes(&self) -> usize {
        self.value_stride() * self.element
    }

    /// Number of the keys, or values, of (`block`, `layer`, `head`) among all.
    fn index(&self, block: usize, layer: usize, head: usize) -> usize {
        let spec = &self.spec;
        assert!(
            block < spec.num_blocks && layer < spec.num_layers && head < spec.num_kv_heads,
            "block {block}, layer {layer}, head {head} of a cache of {}, {}, {}",
            spec.num_blocks,
            spec.num_layers,
            spec.num_kv_heads
        );
        (block * spec.num_layers + layer) * spec.num_kv_heads + head
    }

    /// Byte offset of the first pair of the key at `offset` within its block's keys; `offset` is below the padded block.
    pub(crate) fn key_offset(&self, offset: usize) -> usize {
        let token = if self.element == 2 { 2 } else { 1 };
        offset / GROUP * self.group_bytes() + offset % GROUP * token * self.element
    }
}

impl KvCache {
    /// A zeroed cache for kernels of `isa`, which the machine must have; memory is mapped when first touched.
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`] for a type other than F32 and Bf16; [`Error::Shape`] for an odd head dimension or an empty
    /// block; [`Error::OutOfMemory`].
    pub(crate) fn new(spec: &KvCacheSpec, isa: Isa) -> Result<Self> {
        let dtype = spec.dtype;
        if dtype != DType::F32 && dtype != DType::Bf16 {
            return Err(Error::UnsupportedDType { device: "cpu", what: "the KV cache", dtype });
        }
        if spec.head_dim == 0 || !spec.head_dim.is_multiple_of(2) {
            let expected = spec.head_dim.saturating_add(1).next_multiple_of(2);
            return Err(Error::Shape { what: "an even head_dim of the KV cache", expected, got: spec.head_dim });
        }
        if spec.block_size == 0 {
            return Err(Error::Shape { what: "block_size of the KV cache", expected: 1, got: 0 });
        }
        let element = dtype.type_size();
        let bytes = |tokens: Option<usize>, width: Option<usize>| tokens?.checked_mul(width?)?.checked_mul(element);
        let key_bytes = bytes(spec.block_size.checked_next_multiple_of(GROUP), Some(spec.head_dim));
        let value_bytes = bytes(Some(spec.block_size), spec.head_dim.checked_next_multiple_of(16));
        let count = spec.num_blocks.checked_mul(spec.num_layers).and_then(|n| n.checked_mul(spec.num_kv_heads));
        let total = |each: Option<usize>| Some(count?.checked_mul(each?)?).filter(|&n| isize::try_from(n).is_ok());
        let (Some(all_keys), Some(all_values), Some(key_bytes), Some(value_bytes)) =
            (total(key_bytes), total(value_bytes), key_bytes, value_bytes)
        else {
            let reason = "larger than the address space".into();
            return Err(Error::OutOfMemory { what: "the KV cache", bytes: usize::MAX, reason });
        };
        Ok(Self {
            layout: CacheLayout { spec: *spec, element, key_bytes, value_bytes },
            kernels: *AttentionKernels::new(isa).of(dtype),
            keys: Buffer::zeroed(all_keys, "the keys of the KV cache")?,
            values: Buffer::zeroed(all_values, "the values of the KV cache")?,
        })
    }

    pub(crate) fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// What the cache was made for.
    pub fn spec(&self) -> &KvCacheSpec {
        &self.layout.spec
    }

    /// The keys of a block, layer and head, in this module's layout.
    pub(crate) fn keys(&self, block: usize, layer: usize, head: usize) -> &[u8] {
        let n = self.layout.key_bytes;
        &self.keys.as_slice()[self.layout.index(block, layer, head) * n..][..n]
    }

    /// The values of a block, layer and head, in this module's layout.
    pub(crate) fn values(&self, block: usize, layer: usize, head: usize) -> &[u8] {
        let n = self.layout.value_bytes;
        &self.values.as_slice()[self.layout.index(block, layer, head) * n..][..n]
    }

    /// Copies one block of a layer out in nano-vLLM's plain layout: keys and values, each
    /// `[block_size, num_kv_heads, head_dim]`.
    pub fn copy_block(&self, layer: usize, block: usize) -> (Vec<f32>, Vec<f32>) {
        let KvCacheSpec { block_size, num_kv_heads, head_dim, .. } = self.layout.spec;
        let mut out = (Vec::new(), Vec::new());
        for token in 0..block_size {
            for head in 0..num_kv_heads {
                let keys = &self.keys(block, layer, head)[self.layout.key_offset(token)..];
                let values = &self.values(block, layer, head)[token * self.layout.value_row_bytes()..];
                out.0.extend((0..head_dim).map(|d| match self.layout.element {
                    2 => self.element(keys, d / 2 * 2 * GROUP + d % 2),
                    _ => self.element(keys, d * GROUP),
                }));
                out.1.extend((0..head_dim).map(|d| self.element(values, d)));
            }
        }
        out
    }

    /// Copies a layer out, as [`Backend::read_kv_cache`](nanovllm_backend::Backend::read_kv_cache) says.
    pub(crate) fn copy_layer(&self, layer: usize) -> (Vec<f32>, Vec<f32>) {
        let len = self.spec().layer_len();
        let (mut keys, mut values) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for block in 0..self.spec().num_blocks {
            let (block_keys, block_values) = self.copy_block(layer, block);
            keys.extend(block_keys);
            values.extend(block_values);
        }
        (keys, values)
    }

    /// Overwrites a layer, as [`Backend::write_kv_cache`](nanovllm_backend::Backend::write_kv_cache) says.
    pub(crate) fn write_layer(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let expected = self.spec().layer_len();
        for (what, data) in [("keys of the KV cache", keys), ("values of the KV cache", values)] {
            if data.len() != expected {
                return Err(Error::Shape { what, expected, got: data.len() });
            }
        }
        let width = self.spec().num_kv_heads * self.spec().head_dim;
        let (kernels, writer) = (self.kernels, self.writer());
        for (slot, (k, v)) in keys.chunks_exact(width.max(1)).zip(values.chunks_exact(width.max(1))).enumerate() {
            // SAFETY: the kernels are the cache's own, built for a set the machine has; nobody else holds the cache.
            unsafe { writer.store(&kernels, layer, slot, k, v) };
        }
        Ok(())
    }

    /// Element `i` of `bytes`.
    fn element(&self, bytes: &[u8], i: usize) -> f32 {
        if self.layout.element == 2 {
            bytemuck::pod_read_unaligned::<bf16>(&bytes[2 * i..2 * i + 2]).to_f32()
        } else {
            bytemuck::pod_read_unaligned(&bytes[4 * i..4 * i + 4])
        }
    }

    /// A view for threads that write different slots.
    fn writer(&mut self) -> CacheWriter {
        CacheWriter { layout: self.layout, keys: self.keys.as_mut_ptr(), values: self.values.as_mut_ptr() }
    }
}

/// A cache that several threads of the team write at once, each its own slots.
#[derive(Clone, Copy)]
struct CacheWriter {
    layout: CacheLayout,
    keys: *mut u8,
    values: *mut u8,
}

// SAFETY: the pointers come from a cache borrowed mutably for as long as the team works on it; `store` leaves it to its callers
// that no two threads write the same slot.
unsafe impl Send for CacheWriter {}
// SAFETY: as above.
unsafe impl Sync for CacheWriter {}

impl CacheWriter {
    /// Stores one token's key and value heads, each `[num_kv_heads, head_dim]`.
    ///
    /// # Safety
    /// The machine has the kernels' instruction set, the kernels are those of the cache's type, and no other thread reads or
    /// writes this slot meanwhile.
    unsafe fn store(&self, kernels: &CacheKernels, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let CacheLayout { spec, key_bytes, value_bytes, .. } = self.layout;
        let (block, offset) = (slot / spec.block_size, slot % spec.block_size);
        for head in 0..spec.num_kv_heads {
            let index = self.layout.index(block, layer, head);
            let (key, value) = (&keys[head * spec.head_dim..], &values[head * spec.head_dim..]);
            assert!(key.len() >= spec.head_dim && value.len() >= spec.head_dim);
            // SAFETY: `index` is checked, `offset` is below the block size, and the heads were just measured.
            unsafe {
                let to = self.keys.add(index * key_bytes + self.layout.key_offset(offset));
                (kernels.store_key)(key.as_ptr(), spec.head_dim / 2, to);
                let to = self.values.add(index * value_bytes + offset * self.layout.value_row_bytes());
                (kernels.store_value)(value.as_ptr(), spec.head_dim, to);
            }
        }
    }
}

/// Rows from which waking the team pays.
const TEAM_ROWS: usize = 3;
/// Rows a thread takes at a time.
const CLAIM: usize = 4;

/// One call of [`norm_rope_store`].
struct Store<'a> {
    rows: &'a RowKernels,
    kernels: CacheKernels,
    qkv: SharedMut,
    heads: &'a HeadLayout,
    qk_norm: Option<(&'a Tensor, &'a Tensor, f32)>,
    rope: &'a Tensor,
    positions: &'a [u32],
    slots: &'a [i32],
    cache: CacheWriter,
    layer: usize,
}

impl Store<'_> {
    /// # Safety
    /// The machine has the kernels' instruction set, and no other thread works on this row or its slot.
    unsafe fn row(&self, i: usize) {
        let HeadLayout { num_heads, num_kv_heads, head_dim } = *self.heads;
        // SAFETY: this row is ours; widths were checked in `norm_rope_store`.
        let row = unsafe { self.qkv.row(i) };
        let (q, kv) = row.split_at_mut(self.heads.q_size());
        let (k, v) = kv.split_at_mut(self.heads.kv_size());
        let rope = self.rope.row(self.positions[i] as usize).as_ptr();
        let (q_norm, k_norm) = match self.qk_norm {
            Some((q, k, eps)) => (Some((q.as_slice().as_ptr(), eps)), Some((k.as_slice().as_ptr(), eps))),
            None => (None, None),
        };
        // SAFETY: `q` and `k` are whole heads; norm weights and rope rows are `head_dim` wide; the row's slot is ours.
        unsafe {
            (self.rows.norm_rope)(q.as_mut_ptr(), num_heads, head_dim, q_norm, rope);
            (self.rows.norm_rope)(k.as_mut_ptr(), num_kv_heads, head_dim, k_norm, rope);
            if let Ok(slot) = usize::try_from(self.slots[i]) {
                self.cache.store(&self.kernels, self.layer, slot, k, v);
            }
        }
    }
}

/// Norms each query and key head where weights are given, rotates them, and stores keys and values at the context's slots.
///
/// Queries and keys are updated in place. Slots other than -1 are distinct, as the block manager hands them out.
pub(crate) fn norm_rope_store(
    team: &Team,
    rows: &RowKernels,
    qkv: &mut Tensor,
    heads: &HeadLayout,
    qk_norm: Option<(&Tensor, &Tensor, f32)>,
    rope: &Tensor,
    positions: &[u32],
    cache: &mut KvCache,
    layer: usize,
    context: &Context<'_>,
) {
    let spec = *cache.spec();
    let count = qkv.rows();
    assert_eq!(qkv.cols(), heads.qkv_size(), "columns of qkv");
    assert_eq!((spec.num_kv_heads, spec.head_dim), (heads.num_kv_heads, heads.head_dim), "heads of the KV cache");
    assert_eq!(rope.cols(), heads.head_dim, "columns of the rotary table");
    assert_eq!((positions.len(), context.slot_mapping.len()), (count, count), "positions and slots of the rows");
    if let Some((q, k, _)) = qk_norm {
        assert_eq!((q.as_slice().len(), k.as_slice().len()), (heads.head_dim, heads.head_dim), "q and k norm weights");
    }
    let store = Store {
        rows,
        kernels: cache.kernels,
        qkv: qkv.shared(),
        heads,
        qk_norm,
        rope,
        positions,
        slots: context.slot_mapping,
        cache: cache.writer(),
        layer,
    };
    if count < TEAM_ROWS {
        // SAFETY: tables are built for the machine's sets; nobody else is here.
        (0..count).for_each(|i| unsafe { store.row(i) });
        return;
    }
    let claims = Claims::new(count);
    team.run(|_| {
        while let Some(range) = claims.take(CLAIM) {
            // SAFETY: as above; each row is claimed once, and rows have distinct slots.
            range.for_each(|i| unsafe { store.row(i) });
        }
    });
}

#[cfg(test)]
mod tests;
