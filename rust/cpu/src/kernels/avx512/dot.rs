//! Byte products of AVX-512 VNNI: one 512-bit vector for 16 outputs times 4 inputs.

use std::arch::x86_64::*;

use super::simd::Avx512;
use crate::kernels::generic::dot::Dot;
use crate::kernels::generic::simd::{Proof, Simd, arithmetic};
use crate::layout::Coded;

/// AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Vnni(Avx512);

impl Proof for Vnni {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the machine has the set.
        Self(unsafe { Avx512::assume() })
    }
}

impl Dot for Vnni {
    type S = Avx512;
    type Sum = __m512i;
    const HOLD: bool = true;
    const SIGNED: bool = false;
    const PREFETCH: usize = 4096;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: `self` proves the set; to prefetch from any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    fn table(self, table: &[i8; 16], offset: u8) -> __m512i {
        // SAFETY: `self` proves the set; the table is 16 bytes.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_add_epi8(table, _mm512_set1_epi8(offset.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m512i {
        // SAFETY: `self` proves the set; a vector can be read.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    arithmetic! {
        fn bits(v: __m512i, left: i32, mask: u8) -> __m512i {
            let count = _mm_cvtsi32_si128(left.abs());
            let v = if left < 0 { _mm512_srl_epi16(v, count) } else { _mm512_sll_epi16(v, count) };
            _mm512_and_si512(v, _mm512_set1_epi8(mask.cast_signed()))
        }
        fn or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn flip(v: __m512i) -> __m512i { _mm512_xor_si512(v, _mm512_set1_epi8(-128)) }
        fn lookup(table: __m512i, codes: __m512i) -> __m512i { _mm512_shuffle_epi8(table, codes) }
        fn shl(v: __m512i, n: u32) -> __m512i { _mm512_sll_epi32(v, _mm_cvtsi32_si128(n.cast_signed())) }
    }

    #[inline(always)]
    fn begin(self, start: __m512i) -> __m512i {
        start
    }

    #[inline(always)]
    fn dot<C: Coded>(self, sum: __m512i, _j: usize, codes: __m512i, activations: i32) -> __m512i {
        // SAFETY: `self` proves the set.
        unsafe { _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(activations)) }
    }

    #[inline(always)]
    fn finish(self, sum: __m512i) -> __m512i {
        sum
    }

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> __m512i {
        // SAFETY: `self` proves the set; sixteen bytes can be read.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(self, p: *const u8) -> __m512i {
        // SAFETY: `self` proves the set; sixteen bytes can be read.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(self, p: *const u8) -> __m512 {
        // SAFETY: `self` proves the set; sixteen bytes can be read.
        unsafe {
            let e = self.bytes(p);
            let one = self.0.splat_u(1);
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, one));
            // 2^-128 and 2^-127 for 0 and 1; below every other.
            let subnormal = _mm512_slli_epi32::<21>(_mm512_add_epi32(_mm512_and_si512(e, one), one));
            _mm512_castsi512_ps(_mm512_max_epi32(normal, subnormal))
        }
    }
}
