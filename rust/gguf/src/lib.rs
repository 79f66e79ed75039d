//! The GGUF file format: parse, validate, map, write; block formats with scalar quantise and dequantise.
//!
//! [`GgufFile`] opens a file of version 1, 2 or 3, checks its whole header and tensor table against the file's size,
//! and lends [`TensorView`]s into the mapped bytes. Nothing is allocated by what a file merely claims: a count is
//! compared with the bytes left before anything is sized by it. [`dequantize`] and [`quantize`] are the scalar
//! reference the kernels are measured against; the block structs are public so that packers can read them in place.
//! [`GgufWriter`] writes a file of version 3 tensor by tensor.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test that unwraps fails as it should

mod error;
mod file;
mod file_bytes;
mod header;
mod metadata;
mod quant;
mod quantize;
mod reader;
mod shard;
mod split;
mod table;
mod tensor;
mod types;
mod value;
mod writer;

pub use error::Error;
pub use file::GgufFile;
pub use file_bytes::FileBytes;
pub use metadata::Metadata;
pub use quant::*;
pub use quantize::{can_quantize, dequantize, is_supported, quantize};
pub use tensor::{TensorInfo, TensorSpec, TensorView};
pub use types::GgmlType;
pub use value::{Array, Value};
pub use writer::{GgufWriter, PendingFile};
