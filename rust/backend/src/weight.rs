//! Weights as a model's files store them.

/// The element type of stored weights and caches: GGUF's own enumeration, dense types included.
pub use nanovllm_gguf::GgmlType as DType;

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
