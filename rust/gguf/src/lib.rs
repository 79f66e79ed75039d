//! The GGUF file format: parse, validate, map; block formats with scalar quantise and dequantise.

mod types;

pub use types::GgmlType;
