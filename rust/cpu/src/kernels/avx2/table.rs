//! The kernels compiled for AVX2, with the byte products of AVX2 or of AVX-VNNI.

use super::convert::quantize;
use super::dot::{Maddubs, Vnni, Ymm};
use super::simd::Avx2;
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
            lanes: Avx2::LANES,
            quantize: [quantize::<false>, quantize::<true>],
            pair: None,
            f32: dense_kernel!(["avx2,fma,f16c"], dense::Plain<Avx2, dense::F32>),
            f16: dense_kernel!(["avx2,fma,f16c"], dense::Plain<Avx2, dense::F16>),
            bf16: dense_kernel!(["avx2,fma,f16c"], dense::Plain<Avx2, dense::Bf16>),
            quantized: quantized_kernels!(["avx2,fma,f16c"], Ymm<Maddubs>),
        },
        rows: row_kernels!(["avx2,fma,f16c"], Avx2),
        attention: AttentionKernels {
            f32: cache_kernels!(["avx2,fma,f16c"], cached::F32<Avx2>),
            bf16: cache_kernels!(["avx2,fma,f16c"], cached::Bf16<Avx2>),
        },
    }
}

/// [`kernels`] with the byte products of AVX-VNNI.
///
/// # Safety
/// The machine has the set.
pub(crate) unsafe fn kernels_vnni() -> Kernels {
    // SAFETY: the machine has AVX2.
    let avx2 = unsafe { kernels() };
    let quantized = quantized_kernels!(["avx2,fma,f16c,avxvnni"], Ymm<Vnni>);
    Kernels { matmul: MatmulKernels { quantized, ..avx2.matmul }, ..avx2 }
}

/// The matmul with the byte products of AVX-512 VNNI on 256 bits. They are those of AVX-VNNI in another encoding, so that
/// machines with either test the same kernels. None where the machine has no AVX-512.
#[cfg(test)]
pub(crate) fn matmul_evex() -> Option<MatmulKernels> {
    let quantized = quantized_kernels!(["avx2,fma,f16c,avx512vnni,avx512vl"], Ymm<super::dot::Evex>);
    let available = crate::isa::Isa::Avx512.is_available();
    // SAFETY: a machine with the set AVX-512 has AVX2 and AVX-512 VNNI.
    available.then(|| MatmulKernels { quantized, ..unsafe { kernels() }.matmul })
}
