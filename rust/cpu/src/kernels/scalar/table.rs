//! The generic kernels compiled for what every machine of the target has.

use super::simd::Scalar;
use crate::kernels::cached::{Bf16, F32};
use crate::kernels::table::{AttentionKernels, RowKernels, cache_kernels, row_kernels};

// SSE2 is part of x86-64; on other machines the macro names no feature.
pub(crate) fn rows() -> RowKernels {
    row_kernels!("sse2", Scalar)
}

pub(crate) fn attention() -> AttentionKernels {
    AttentionKernels {
        f32: cache_kernels!("sse2", Scalar, F32<Scalar>),
        bf16: cache_kernels!("sse2", Scalar, Bf16<Scalar>),
    }
}
