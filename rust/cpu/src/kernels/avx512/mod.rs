//! Kernels for AVX-512 with VNNI, and BF16 where the machine has it.

mod dot;
pub(crate) mod matmul;
pub(super) mod simd;
pub(crate) mod table;
