//! Where the keys and values of each layer, block and head lie in a cache.

use nanovllm_backend::{KvCacheSpec, KvHeads};

use crate::kernels::generic::cached::PANEL;

/// Where the keys of a layer lie among all keys, or its values among all values, in bytes.
#[derive(Debug, Clone, Copy)]
struct Strides {
    /// Those of the layer's first head within a block.
    first: usize,
    /// From a head to the next.
    head: usize,
    /// From a block to the next: what all layers store of one.
    block: usize,
}

/// The part of a cache that one layer reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerLayout {
    pub(crate) heads: KvHeads,
    pub(crate) block_size: usize,
    num_blocks: usize,
    /// Bytes of an element.
    pub(crate) element: usize,
    keys: Strides,
    values: Strides,
}

impl LayerLayout {
    /// Elements of a value row: the head dimension rounded up to 16.
    pub(crate) fn value_stride(&self) -> usize {
        self.heads.head_dim.next_multiple_of(16)
    }

    /// Bytes of a panel: the keys of 16 tokens.
    pub(crate) fn panel_bytes(&self) -> usize {
        PANEL * self.heads.head_dim * self.element
    }

    /// Bytes of a value row.
    pub(crate) fn value_row_bytes(&self) -> usize {
        self.value_stride() * self.element
    }

    /// Bytes of the keys of the first tokens of a block and head, whole panels.
    pub(super) fn key_bytes_of(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(PANEL) * self.panel_bytes()
    }

    /// Bytes of the keys of one block and head, whole panels.
    pub(super) fn key_bytes(&self) -> usize {
        self.keys.head
    }

    /// Bytes of the values of one block and head.
    pub(super) fn value_bytes(&self) -> usize {
        self.values.head
    }

    /// Byte offsets of the keys and of the values of a block and head.
    pub(super) fn at(&self, block: usize, head: usize) -> (usize, usize) {
        let (blocks, heads) = (self.num_blocks, self.heads.num_kv_heads);
        assert!(block < blocks && head < heads, "block {block}, head {head} of a layer of {blocks} and {heads}");
        let offset = |strides: &Strides| strides.first + block * strides.block + head * strides.head;
        (offset(&self.keys), offset(&self.values))
    }

    /// Byte offset of the first pair of the key at `offset` within its block's keys; `offset` is below the padded block.
    pub(crate) fn key_offset(&self, offset: usize) -> usize {
        let token = if self.element == 2 { 2 } else { 1 };
        offset / PANEL * self.panel_bytes() + offset % PANEL * token * self.element
    }
}

/// The layers of a cache and its bytes.
pub(super) struct CacheLayout {
    /// For a layer that shares an earlier one's storage, that layer's.
    pub(super) layers: Vec<LayerLayout>,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
}

impl CacheLayout {
    /// The layout of `spec`, which has been checked; `None` when it exceeds the address space.
    pub(super) fn new(spec: &KvCacheSpec) -> Option<Self> {
        let element = spec.dtype.type_size();
        let tokens = spec.block_size.checked_next_multiple_of(PANEL)?;
        let (mut keys, mut values) = (0usize, 0usize);
        let mut layers: Vec<LayerLayout> = Vec::with_capacity(spec.layers.len());
        for layer in 0..spec.layers.len() {
            let Some(heads) = spec.stored_heads(layer) else {
                layers.push(*layers.get(spec.owner(layer)?)?);
                continue;
            };
            let head_keys = tokens.checked_mul(heads.head_dim)?.checked_mul(element)?;
            let width = heads.head_dim.checked_next_multiple_of(16)?;
            let head_values = spec.block_size.checked_mul(width)?.checked_mul(element)?;
            layers.push(LayerLayout {
                heads,
                block_size: spec.block_size,
                num_blocks: spec.num_blocks,
                element,
                keys: Strides { first: keys, head: head_keys, block: 0 },
                values: Strides { first: values, head: head_values, block: 0 },
            });
            keys = keys.checked_add(heads.num_kv_heads.checked_mul(head_keys)?)?;
            values = values.checked_add(heads.num_kv_heads.checked_mul(head_values)?)?;
        }
        for layer in &mut layers {
            (layer.keys.block, layer.values.block) = (keys, values);
        }
        let all = |block: usize| spec.num_blocks.checked_mul(block).filter(|&n| isize::try_from(n).is_ok());
        Some(Self { key_bytes: all(keys)?, value_bytes: all(values)?, layers })
    }
}
