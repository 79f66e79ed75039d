//! The kernels in portable Rust.

use super::convert::quantize;
use super::quantized;
use super::simd::Scalar;
use crate::kernels::generic::simd::Simd;
use crate::kernels::generic::{cached, dense};
use crate::kernels::table::{AttentionKernels, Kernels, MatmulKernels, cache_kernels, dense_kernel, row_kernels};

/// The kernels, which any machine can run.
pub(crate) fn kernels() -> Kernels {
    Kernels {
        matmul: MatmulKernels {
            lanes: Scalar::LANES,
            quantize: [quantize::<false>, quantize::<true>],
            pair: None,
            f32: dense_kernel!([], dense::Plain<Scalar, dense::F32>),
            f16: dense_kernel!([], dense::Plain<Scalar, dense::F16>),
            bf16: dense_kernel!([], dense::Plain<Scalar, dense::Bf16>),
            quantized: quantized::tiles(),
        },
        rows: row_kernels!([], Scalar),
        attention: AttentionKernels {
            f32: cache_kernels!([], cached::F32<Scalar>),
            bf16: cache_kernels!([], cached::Bf16<Scalar>),
        },
    }
}
