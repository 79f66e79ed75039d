//! AVX-512 with VNNI on 512-bit vectors, and BF16 where the machine has it.

mod bf16;
mod convert;
mod dot;
mod simd;
mod table;

pub(super) use table::{kernels, kernels_bf16};
