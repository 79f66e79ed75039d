//! Weights as a model's files store them.

/// A part of a file that stays readable.
pub use nanovllm_gguf::FilePart;
/// The element type of stored weights and caches: GGUF's own enumeration, dense types included.
pub use nanovllm_gguf::GgmlType as DType;

/// A weight matrix as a file stores it, row-major, one row an output. Several may be [stacked](crate::Backend::concat).
#[derive(Debug, Clone, Copy)]
pub struct WeightPart<'a> {
    /// The type of the elements; quantised types hold them in blocks along a row.
    pub dtype: DType,
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs; a multiple of the type's block size.
    pub cols: usize,
    /// `rows * cols` elements as stored: little-endian, at any address.
    pub data: &'a [u8],
}
