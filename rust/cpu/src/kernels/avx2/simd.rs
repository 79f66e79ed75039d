//! 256-bit vectors: 8 f32.

use std::arch::x86_64::*;

use crate::kernels::generic::simd::{Proof, Simd, arithmetic};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    arithmetic! {
        /// All bits of the first `n` lanes set.
        fn first(n: usize) -> __m256i {
            _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
        }

        /// f32 from the bits of bf16 in the high halves.
        fn high_halves(bits: __m256i) -> __m256 {
            _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-0x10000)))
        }

        /// f32 from the bits of bf16 in the low halves.
        fn low_halves(bits: __m256i) -> __m256 {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
}

impl Proof for Avx2 {
    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }
}

impl Simd for Avx2 {
    type V = __m256;
    type U = __m256i;
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const VECTORS: usize = 2;
    const MATMUL_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: `self` proves the set; a vector can be read.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: `self` proves the set; a vector can be written.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize, fill: f32) -> __m256 {
        let mask = self.first(n);
        // SAFETY: `self` proves the set; `n` values can be read, and the mask hides the rest.
        unsafe { _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask)) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m256, n: usize) {
        // SAFETY: `self` proves the set; `n` values can be written, and the mask hides the rest.
        unsafe { _mm256_maskstore_ps(p, self.first(n), v) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m256 {
        // SAFETY: `self` proves the set; eight halves can be read.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m256 {
        // SAFETY: `self` proves the set; eight halves can be read.
        self.low_halves(unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())) })
    }

    #[inline(always)]
    unsafe fn load_bf16_even(self, p: *const u16) -> __m256 {
        // SAFETY: `self` proves the set; sixteen halves can be read.
        self.low_halves(unsafe { _mm256_loadu_si256(p.cast()) })
    }

    #[inline(always)]
    unsafe fn load_bf16_odd(self, p: *const u16) -> __m256 {
        // SAFETY: `self` proves the set; sixteen halves can be read.
        self.high_halves(unsafe { _mm256_loadu_si256(p.cast()) })
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, v: __m256) {
        // SAFETY: `self` proves the set; eight halves can be written.
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            // Rounding could carry a NaN into an infinity: quiet it instead.
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let high = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
            _mm_storeu_si128(p.cast(), packed);
        }
    }

    arithmetic! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn round(v: __m256) -> __m256 { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
        fn scale2(v: __m256, n: __m256) -> __m256 {
            let exponent = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
            _mm256_mul_ps(v, _mm256_castsi256_ps(exponent))
        }
        fn zero_below(v: __m256, x: __m256, bound: __m256) -> __m256 {
            _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_GE_OQ>(x, bound))
        }
        fn sum(v: __m256) -> f32 {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
        fn largest(v: __m256) -> f32 {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
        fn lane0(v: __m256) -> f32 { _mm256_cvtss_f32(v) }
        fn ge_bits(a: __m256, b: __m256) -> u32 {
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b)).cast_unsigned()
        }

        fn iota() -> __m256i { _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7) }
        fn splat_u(x: u32) -> __m256i { _mm256_set1_epi32(x.cast_signed()) }
        fn add_u(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn xor_u(a: __m256i, b: __m256i) -> __m256i { _mm256_xor_si256(a, b) }
        fn mul_u(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi32(a, b) }
        fn shr_u<const N: u32>(a: __m256i) -> __m256i { _mm256_srl_epi32(a, _mm_cvtsi32_si128(N.cast_signed())) }
        fn to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
    }
}
