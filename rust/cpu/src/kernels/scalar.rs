//! Portable Rust: the reference, and the path of machines without a faster set.

mod convert;
mod quantized;
mod simd;
mod table;

pub(super) use table::kernels;
