//! What a model keeps of the tokens it has seen: the description of its paged cache, an entry a layer.

use crate::error::{Error, Result};
use crate::weight::DType;

/// The heads of the keys and of the values that a layer keeps of each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHeads {
    /// Number of key heads, and of value heads.
    pub num_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
}

impl KvHeads {
    /// Width of a token's keys in elements, and of its values.
    pub fn size(&self) -> usize {
        self.num_kv_heads.saturating_mul(self.head_dim)
    }
}

/// What one layer of a model keeps of the tokens it has seen.
///
/// A layer that keeps a state of fixed size instead of keys and values (a recurrence, a short convolution) will be a
/// variant here, with its storage beside the paged cache: a sequence then has a place for its state as it has blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerCache {
    /// Keys and values of every token, all of which attention reads.
    Full(KvHeads),
    /// Keys and values of every token, of which attention reads the newest `window` only: the layer's
    /// [`AttentionOptions::window`](crate::AttentionOptions::window) is the same.
    SlidingWindow {
        /// What is kept of each token.
        heads: KvHeads,
        /// The number of positions that a row sees at most, its own included; at least 1.
        window: usize,
    },
    /// Nothing of its own: the layer reads what an earlier one, which is not shared itself, has stored.
    Shared(usize),
}

/// The paged key/value cache of a model, from which a device allocates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvCacheSpec {
    /// Number of blocks, which all sequences share; a block spans all layers.
    pub num_blocks: usize,
    /// Tokens in a block; at least 1.
    pub block_size: usize,
    /// The type of keys and values, F32 or Bf16.
    pub dtype: DType,
    /// What each layer keeps, in the model's order.
    pub layers: Vec<LayerCache>,
}

/// The tokens at the beginning of a block that another block is to hold too, in every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// The block that has them.
    pub from: u32,
    /// The block that gets them: another one.
    pub to: u32,
    /// How many they are, at most a block.
    pub num_tokens: u32,
}

impl KvCacheSpec {
    /// The layer that stores the keys and values of `layer`: itself, or the one it shares. `None` where there is no
    /// such layer.
    pub fn owner(&self, layer: usize) -> Option<usize> {
        match self.layers.get(layer)? {
            LayerCache::Full(_) | LayerCache::SlidingWindow { .. } => Some(layer),
            &LayerCache::Shared(with) => {
                let stores = !matches!(self.layers.get(with)?, LayerCache::Shared(_));
                (with < layer && stores).then_some(with)
            }
        }
    }

    /// The heads of the keys and values that `layer` stores itself; `None` where it stores none.
    pub fn stored_heads(&self, layer: usize) -> Option<KvHeads> {
        match *self.layers.get(layer)? {
            LayerCache::Full(heads) | LayerCache::SlidingWindow { heads, .. } => Some(heads),
            LayerCache::Shared(_) => None,
        }
    }

    /// The heads of the keys and values that `layer` reads, its own or an earlier layer's.
    pub fn heads(&self, layer: usize) -> Option<KvHeads> {
        self.stored_heads(self.owner(layer)?)
    }

    /// Elements of the keys that `layer` reads, and of its values; 0 where there is no such layer.
    pub fn layer_len(&self, layer: usize) -> usize {
        let tokens = self.num_blocks.saturating_mul(self.block_size);
        self.heads(layer).map_or(0, |heads| tokens.saturating_mul(heads.size()))
    }

    /// Bytes of one block over all layers, keys and values, not counting what a device pads.
    pub fn block_bytes(&self) -> usize {
        let token = (0..self.layers.len())
            .filter_map(|layer| self.stored_heads(layer))
            .fold(0usize, |sum, heads| sum.saturating_add(heads.size()));
        [self.block_size, self.dtype.type_size(), token].into_iter().fold(2usize, usize::saturating_mul)
    }

    /// Refuses what no device can make a cache of; a device calls it first.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty block, an odd or empty head, an empty window, or a layer that shares the cache of
    /// one that does not come before it or stores nothing.
    pub fn check(&self) -> Result<()> {
        let refuse = |what, expected, got| Err(Error::Shape { what, expected, got });
        if self.block_size == 0 {
            return refuse("block_size of the KV cache", 1, 0);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            match *layer {
                LayerCache::SlidingWindow { window: 0, .. } => return refuse("the sliding window of a layer", 1, 0),
                LayerCache::Shared(with) if self.owner(i).is_none() => {
                    let what = "the layer whose cache a later one shares, which must have one of its own; the latest it can be";
                    return refuse(what, i.saturating_sub(1), with);
                }
                LayerCache::Full(heads) | LayerCache::SlidingWindow { heads, .. }
                    if heads.head_dim == 0 || !heads.head_dim.is_multiple_of(2) =>
                {
                    let expected = heads.head_dim.saturating_add(1).next_multiple_of(2);
                    return refuse("an even head_dim of the KV cache", expected, heads.head_dim);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: KvHeads = KvHeads { num_kv_heads: 2, head_dim: 4 };
    const LARGE: KvHeads = KvHeads { num_kv_heads: 1, head_dim: 16 };

    fn spec(layers: Vec<LayerCache>) -> KvCacheSpec {
        KvCacheSpec { num_blocks: 3, block_size: 5, dtype: DType::Bf16, layers }
    }

    #[test]
    fn layers_differ_and_share() {
        let window = LayerCache::SlidingWindow { heads: SMALL, window: 7 };
        let spec = spec(vec![LayerCache::Full(LARGE), window, LayerCache::Shared(0), LayerCache::Shared(1)]);
        assert!(spec.check().is_ok());
        assert_eq!((0..5).map(|i| spec.owner(i)).collect::<Vec<_>>(), [Some(0), Some(1), Some(0), Some(1), None]);
        assert_eq!((spec.heads(2), spec.stored_heads(2)), (Some(LARGE), None));
        assert_eq!((spec.layer_len(3), spec.layer_len(9)), (15 * 8, 0));
        assert_eq!(spec.block_bytes(), 2 * 5 * 2 * (16 + 8), "what is shared is stored once");
    }

    #[test]
    fn impossible_layers_are_refused() {
        let refused = |layers: Vec<LayerCache>, word: &str| {
            let text = spec(layers).check().expect_err("impossible").to_string();
            assert!(text.contains(word), "{text}");
        };
        refused(vec![LayerCache::Shared(0)], "shares");
        refused(vec![LayerCache::Shared(1), LayerCache::Full(SMALL)], "shares");
        refused(vec![LayerCache::Full(SMALL), LayerCache::Shared(0), LayerCache::Shared(1)], "shares");
        refused(vec![LayerCache::Full(KvHeads { head_dim: 3, ..SMALL })], "head_dim");
        refused(vec![LayerCache::SlidingWindow { heads: SMALL, window: 0 }], "window");
        let empty = KvCacheSpec { block_size: 0, ..spec(vec![LayerCache::Full(SMALL)]) };
        assert!(empty.check().is_err());
    }
}
