//! Shapes that cross the contract.

use crate::DType;

/// A stored weight matrix, row-major, one row an output.
#[derive(Debug, Clone, Copy)]
pub struct WeightPart<'a> {
    /// Element type of `data`.
    pub dtype: DType,
    /// Outputs.
    pub rows: usize,
    /// Inputs; a multiple of the type's block size.
    pub cols: usize,
    /// `rows * cols` elements as stored in the file (little-endian).
    pub data: &'a [u8],
}

/// The attention heads of one layer on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
}

impl HeadLayout {
    /// Width of the query part of a qkv row.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of the key part of a qkv row, and of the value part.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Width of a qkv row.
    pub fn qkv_size(&self) -> usize {
        self.q_size() + 2 * self.kv_size()
    }
}
