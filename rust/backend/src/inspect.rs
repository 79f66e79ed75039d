//! Looking into weights and caches, for tests and for programs that step by hand; the engine never does.

use crate::backend::Backend;
use crate::error::Result;

/// A device whose weights and caches can be looked into.
pub trait Inspect: Backend {
    /// Copies a weight out in plain f32, `[outputs, inputs]` row by row, with the values that the device computes with.
    fn unpack(&self, weight: &Self::Weight) -> Vec<f32>;

    /// Copies out the keys and the values that `layer` reads, widened to f32, each in nano-vLLM's plain layout
    /// `[num_blocks, block_size, num_kv_heads, head_dim]`. A layer that shares an earlier one's cache reads that.
    fn read_kv_cache(&self, cache: &Self::KvCache, layer: usize) -> (Vec<f32>, Vec<f32>);

    /// Overwrites the keys and the values that `layer` reads, in the same layout, each rounded to the nearest value of
    /// the cache's type.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when `keys` or `values` has another length; the cache is then unchanged.
    fn write_kv_cache(&self, cache: &mut Self::KvCache, layer: usize, keys: &[f32], values: &[f32]) -> Result<()>;
}
