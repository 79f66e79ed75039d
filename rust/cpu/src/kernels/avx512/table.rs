//! The kernels compiled for AVX-512, without and with its BF16 extension.

use super::bf16::{PairedCache, PairedWeights};
use super::convert::{pair, quantize};
use super::dot::Vnni;
use super::simd::Avx512;
use crate::kernels::generic::simd::Simd;
use crate::kernels::generic::{cached, dense};
use crate::kernels::table::{
    AttentionKernels, Kernels, MatmulKernels, cache_kernels, dense_kernel, quantized_kernels, row_kernels,
};

/// The kernels of the set.
///
/// # Safety
/// The machine has the set.
pub(crate) unsafe fn kernels() -> Kernels {
    Kernels {
        matmul: MatmulKernels {
            lanes: Avx512::LANES,
            quantize: [quantize::<false>, quantize::<true>],
            pair: None,
            f32: dense_kernel!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"], dense::Plain<Avx512, dense::F32>),
            f16: dense_kernel!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"], dense::Plain<Avx512, dense::F16>),
            bf16: dense_kernel!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"], dense::Plain<Avx512, dense::Bf16>),
            quantized: quantized_kernels!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"], Vnni),
        },
        rows: row_kernels!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"], Avx512),
        attention: AttentionKernels {
            f32: cache_kernels!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"], cached::F32<Avx512>),
            bf16: cache_kernels!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"], cached::Bf16<Avx512>),
        },
    }
}

/// [`kernels`] with products of bf16 pairs for bf16 weights, and for the queries and keys of a bf16 cache.
///
/// # Safety
/// The machine has the set.
pub(crate) unsafe fn kernels_bf16() -> Kernels {
    // SAFETY: the machine has AVX-512.
    let avx512 = unsafe { kernels() };
    let bf16 = dense_kernel!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"], PairedWeights);
    Kernels {
        matmul: MatmulKernels { pair: Some(pair), bf16, ..avx512.matmul },
        attention: AttentionKernels {
            bf16: cache_kernels!(["avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"], PairedCache),
            ..avx512.attention
        },
        ..avx512
    }
}
