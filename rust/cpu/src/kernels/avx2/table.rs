//! The generic kernels compiled for AVX2.

use super::simd::Avx2;
use crate::kernels::cached::{Bf16, F32};
use crate::kernels::table::{AttentionKernels, RowKernels, cache_kernels, row_kernels};

pub(crate) fn rows() -> RowKernels {
    row_kernels!("avx2,fma", Avx2)
}

pub(crate) fn attention() -> AttentionKernels {
    AttentionKernels {
        f32: cache_kernels!("avx2,fma", Avx2, F32<Avx2>),
        bf16: cache_kernels!("avx2,fma", Avx2, Bf16<Avx2>),
    }
}
