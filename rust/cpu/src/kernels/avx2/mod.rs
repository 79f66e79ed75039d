//! Kernels for AVX2, FMA and F16C.

mod dot;
pub(crate) mod matmul;
pub(super) mod simd;
pub(crate) mod table;
