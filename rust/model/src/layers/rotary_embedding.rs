//! The table of cosines and sines that rotates queries and keys.

use nanovllm_backend::{Backend, Error};

use crate::config::RopeConfig;
use crate::error::Result;

/// `[max_position, head_dim]`: cosines of the position times each inverse frequency, then sines.
pub struct RotaryEmbedding<B: Backend> {
    /// The table.
    pub cos_sin_cache: B::Tensor,
}

impl<B: Backend> RotaryEmbedding<B> {
    /// The table for positions below `max_position`. Angles are worked out in f64: in f32 those of far positions lose digits.
    ///
    /// # Errors
    /// [`crate::LoadError::Config`] for a scaling that gives no angles; [`crate::LoadError::Backend`] when memory is short.
    pub fn new(backend: &B, config: &RopeConfig, head_dim: usize, max_position: usize) -> Result<Self> {
        let (inverse, scale) = config.inverse_frequencies(head_dim)?;
        let (what, len) = ("the rotary table", max_position.saturating_mul(head_dim));
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
        Ok(Self { cos_sin_cache: backend.upload(&table, max_position, head_dim)? })
    }
}
