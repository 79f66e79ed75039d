//! AVX2, FMA and F16C on 256-bit vectors, with the byte products of AVX2 or of AVX-VNNI.

mod convert;
mod dot;
mod simd;
mod table;

#[cfg(test)]
pub(crate) use table::matmul_evex;
pub(super) use table::{kernels, kernels_vnni};
