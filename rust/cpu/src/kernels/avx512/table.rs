//! The generic kernels compiled for AVX-512, and the dot product of its BF16 extension.

use std::arch::x86_64::*;

use super::simd::Avx512;
use crate::kernels::cached::{Bf16, Cached, F32};
use crate::kernels::simd::Simd;
use crate::kernels::table::{AttentionKernels, RowKernels, cache_kernels, row_kernels};

pub(crate) fn rows() -> RowKernels {
    row_kernels!("avx512f,avx512bw,avx512dq,avx512vl", Avx512)
}

pub(crate) fn attention() -> AttentionKernels {
    AttentionKernels {
        f32: cache_kernels!("avx512f,avx512bw,avx512dq,avx512vl", Avx512, F32<Avx512>),
        bf16: cache_kernels!("avx512f,avx512bw,avx512dq,avx512vl", Avx512, Bf16<Avx512>),
    }
}

/// [`attention`] with bf16 queries and products for a bf16 cache; values and sums stay f32.
pub(crate) fn attention_bf16() -> AttentionKernels {
    AttentionKernels {
        bf16: cache_kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", Avx512, Bf16Pairs),
        ..attention()
    }
}

/// A bf16 cache multiplied in pairs.
struct Bf16Pairs;

impl Cached for Bf16Pairs {
    type S = Avx512;
    type Element = u16;
    type Query = u32;
    type Keys = __m512i;
    const TOKEN: usize = 2;
    const STEPS: usize = 1;

    #[inline(always)]
    unsafe fn query(even: f32, odd: f32) -> u32 {
        let bits = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
        bits(even) | bits(odd) << 16
    }

    #[inline(always)]
    unsafe fn keys(p: *const u16, _step: usize) -> __m512i {
        // SAFETY: by the trait's contract.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(acc: __m512, keys: __m512i, query: &u32, _step: usize) -> __m512 {
        // SAFETY: by the trait's contract; the transmutes are between vectors of the same bits.
        unsafe {
            let query = _mm512_set1_epi32(query.cast_signed());
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(keys),
                std::mem::transmute::<__m512i, __m512bh>(query),
            )
        }
    }

    #[inline(always)]
    unsafe fn values(p: *const u16) -> __m512 {
        // SAFETY: by the trait's contract.
        unsafe { Avx512::load_bf16(p) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut u16, v: __m512) {
        // SAFETY: by the trait's contract.
        unsafe { Avx512::store_bf16(p, v) }
    }
}
