//! What tests and programs that step by hand look at, and the engine never needs.

use crate::backend::Backend;
use crate::error::Result;

/// A device whose weights and caches can be looked into.
pub trait Inspect: Backend {
    /// Copies a weight out in plain row-major f32, `rows * cols` values, as the device computes with it.
    fn unpack(&self, weight: &Self::Weight) -> Vec<f32>;

    /// Copies what one layer of a cache reads out as f32: keys and values, each in nano-vLLM's plain layout
    /// `[num_blocks, block_size, num_kv_heads, head_dim]`. `layer` is in range.
    fn read_kv_cache(&self, cache: &Self::KvCache, layer: usize) -> (Vec<f32>, Vec<f32>);

    /// Overwrites what one layer of a cache reads with what [`read_kv_cache`](Self::read_kv_cache) gives: rounded once, to the
    /// nearest value of the cache's type. `layer` is in range.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when either slice has another length; the cache is then unchanged.
    fn write_kv_cache(&self, cache: &mut Self::KvCache, layer: usize, keys: &[f32], values: &[f32]) -> Result<()>;
}
