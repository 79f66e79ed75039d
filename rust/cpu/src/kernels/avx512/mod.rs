//! Kernels for AVX-512 with VNNI, and BF16 where the machine has it.

pub(crate) mod matmul;
mod simd;
pub(crate) mod table;
