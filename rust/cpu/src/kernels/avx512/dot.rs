//! Byte products of AVX-512 VNNI: groups of 16 outputs, one 512-bit vector for 16 outputs times 4 inputs.

use std::arch::x86_64::*;

use super::simd::Avx512;
use crate::kernels::quantized::{self, Dot};
use crate::layout::{Coded, ForLayout, Layout, for_each};
use crate::matmul::{Tile, TileKernel};

/// The kernels of every layout, for i8 blocks of activations and for wide ones.
pub(super) fn tiles() -> [[TileKernel; 2]; Layout::COUNT] {
    for_each::<Vnni>()
}

/// AVX-512 F, BW, DQ, VL and VNNI.
struct Vnni;

impl ForLayout for Vnni {
    type Result = [TileKernel; 2];
    fn of<C: Coded>() -> [TileKernel; 2] {
        [tile::<C, 1>, tile::<C, 2>]
    }
}

/// # Safety
/// See [`TileKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile<C: Coded, const PLANES: usize>(tile: &Tile) {
    // SAFETY: passed on.
    unsafe { quantized::tile::<Vnni, C, PLANES>(tile) }
}

impl Dot for Vnni {
    type S = Avx512;
    type Sum = __m512i;
    const ROWS: usize = 8;
    const HOLD: bool = true;
    const SIGNED: bool = false;
    const PREFETCH: usize = 4096;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: the trait's contract.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn bits(v: __m512i, left: i32, mask: u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let count = _mm_cvtsi32_si128(left.abs());
            let v = if left < 0 { _mm512_srl_epi16(v, count) } else { _mm512_sll_epi16(v, count) };
            _mm512_and_si512(v, _mm512_set1_epi8(mask.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn flip(v: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_xor_si512(v, _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn table(table: &[i8; 16], offset: u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_add_epi8(table, _mm512_set1_epi8(offset.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn lookup(table: __m512i, codes: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_shuffle_epi8(table, codes) }
    }

    #[inline(always)]
    unsafe fn shl(v: __m512i, n: u32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_sll_epi32(v, _mm_cvtsi32_si128(n.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn to_f32(v: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi32_ps(v) }
    }

    #[inline(always)]
    unsafe fn begin(start: __m512i) -> __m512i {
        start
    }

    #[inline(always)]
    unsafe fn dot<C: Coded>(sum: __m512i, _j: usize, codes: __m512i, activations: *const i8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(activations.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn finish(sum: __m512i) -> __m512i {
        sum
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(p: *const u8) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe {
            let e = Self::bytes(p);
            let one = _mm512_set1_epi32(1);
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, one));
            // 2^-128 and 2^-127 for 0 and 1; below every other.
            let subnormal = _mm512_slli_epi32::<21>(_mm512_add_epi32(_mm512_and_si512(e, one), one));
            _mm512_castsi512_ps(_mm512_max_epi32(normal, subnormal))
        }
    }
}
