//! The GGUF file format of llama.cpp: reading and writing files, and the block formats of quantised tensors.
//!
//! ```
//! use nanovllm_gguf::{GgmlType, GgufFile, GgufWriter, Metadata, TensorSpec, Value, quantize};
//!
//! let mut metadata = Metadata::default();
//! metadata.set("general.name", Value::String("tiny".to_owned()));
//! let weight = TensorSpec { name: "w".to_owned(), dims: vec![32, 2], dtype: GgmlType::Q4_0 };
//! let mut blocks = Vec::new();
//! quantize(weight.dtype, &[0.5; 64], &mut blocks)?;
//! let mut writer = GgufWriter::new(Vec::new(), &metadata, &[weight])?; // `create` writes a file instead
//! writer.tensor("w", &blocks)?;
//!
//! let file = GgufFile::from_bytes(writer.into_inner()?)?; // `open` maps a file instead
//! assert_eq!(file.metadata().str("general.name")?, "tiny");
//! assert_eq!(file.tensor("w").ok_or("no such tensor")?.to_f32()?, [0.5; 64]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`GgufFile`] opens a file of version 1, 2 or 3, checks its whole header and tensor table against the file's size,
//! and lends [`TensorView`]s into the mapped bytes. What a file merely claims allocates nothing: a count is compared
//! with the bytes left before anything is sized by it. [`dequantize`] and [`quantize`] are the plain code that the
//! kernels of the devices are compared with; the block structs are public so that a device can read them in place.
//! [`GgufWriter`] writes a file of version 3 tensor by tensor.
//!
//! The format is described in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

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
pub use file_bytes::{FileBytes, FilePart};
pub use metadata::Metadata;
pub use quant::*;
pub use quantize::{can_quantize, dequantize, is_supported, quantize};
pub use tensor::{TensorInfo, TensorSpec, TensorView};
pub use types::GgmlType;
pub use value::{Array, Value};
pub use writer::{GgufWriter, PendingFile};
