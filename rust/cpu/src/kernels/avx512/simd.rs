//! 512-bit vectors: 16 f32.

use std::arch::x86_64::*;

use crate::kernels::generic::simd::{Proof, Simd, arithmetic};

/// AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// A mask of the first `n` lanes.
#[inline(always)]
pub(super) fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl Proof for Avx512 {
    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
}

impl Simd for Avx512 {
    type V = __m512;
    type U = __m512i;
    const LANES: usize = 16;
    const ROWS: usize = 6;
    const VECTORS: usize = 4;
    const MATMUL_ROWS: usize = 8;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: `self` proves the set; a vector can be read.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: `self` proves the set; a vector can be written.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize, fill: f32) -> __m512 {
        // SAFETY: `self` proves the set; `n` values can be read, and the mask hides the rest.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(n), p) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m512, n: usize) {
        // SAFETY: `self` proves the set; `n` values can be written, and the mask hides the rest.
        unsafe { _mm512_mask_storeu_ps(p, first(n), v) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m512 {
        // SAFETY: `self` proves the set; sixteen halves can be read.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m512 {
        // SAFETY: `self` proves the set; sixteen halves can be read.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16_even(self, p: *const u16) -> __m512 {
        // SAFETY: `self` proves the set; 32 halves can be read.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_bf16_odd(self, p: *const u16) -> __m512 {
        // SAFETY: `self` proves the set; 32 halves can be read.
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p.cast()), _mm512_set1_epi32(-0x10000))) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, v: __m512) {
        // SAFETY: `self` proves the set; sixteen halves can be written.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // Rounding could carry a NaN into an infinity: quiet it instead.
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded)));
        }
    }

    arithmetic! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn round(v: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
        }
        fn scale2(v: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(v, n) }
        fn zero_below(v: __m512, x: __m512, bound: __m512) -> __m512 {
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, bound), v)
        }
        fn sum(v: __m512) -> f32 { _mm512_reduce_add_ps(v) }
        fn largest(v: __m512) -> f32 { _mm512_reduce_max_ps(v) }
        fn lane0(v: __m512) -> f32 { _mm512_cvtss_f32(v) }
        fn ge_bits(a: __m512, b: __m512) -> u32 { u32::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b)) }

        fn iota() -> __m512i { _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }
        fn splat_u(x: u32) -> __m512i { _mm512_set1_epi32(x.cast_signed()) }
        fn add_u(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn xor_u(a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn mul_u(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi32(a, b) }
        fn shr_u<const N: u32>(a: __m512i) -> __m512i { _mm512_srli_epi32::<N>(a) }
        fn to_f32(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
    }
}
