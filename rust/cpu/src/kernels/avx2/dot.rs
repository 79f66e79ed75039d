//! Byte products on 256 bits: one vector for 8 outputs times 4 inputs.
//!
//! AVX2's `vpmaddubsw` adds two products of an unsigned and a signed byte in 16 bits and saturates. Codes of up to six bits are
//! safe as they are, and sums of several pairs too; larger ones are multiplied as |w| x sign(a, w), where 2 x 128 x 127 fits
//! because activations stop at 127. AVX-VNNI's `vpdpbusd` adds four products to 32 bits and needs neither.

use std::arch::x86_64::*;

use super::simd::Avx2;
use crate::kernels::generic::dot::Dot;
use crate::kernels::generic::simd::{Proof, Simd, arithmetic};
use crate::layout::{Coded, FOURS, Shape};

/// The byte products of one instruction set.
pub(super) trait Products: Copy + 'static {
    type Sum: Copy;
    /// See [`Dot::SIGNED`].
    const SIGNED: bool;

    /// See [`Dot::begin`].
    fn begin(start: __m256i) -> Self::Sum;
    /// See [`Dot::dot`]; `a` holds four activations in each lane.
    ///
    /// # Safety
    /// The machine has the instruction set.
    unsafe fn dot<C: Coded>(sum: Self::Sum, j: usize, w: __m256i, a: __m256i) -> Self::Sum;
    /// See [`Dot::finish`].
    fn finish(sum: Self::Sum) -> __m256i;
}

/// AVX2 alone.
#[derive(Clone, Copy)]
pub(super) struct Maddubs;

/// Sums of 32 bits, and of 16 bits yet to be added to them.
#[derive(Clone, Copy)]
pub(super) struct Widening {
    wide: __m256i,
    narrow: __m256i,
}

/// Pairs of products that can be added in 16 bits, a power of two that divides a run.
const fn pairs(shape: Shape) -> usize {
    let largest = if shape.offset() == 128 { 128 } else { shape.largest() };
    let mut pairs = FOURS / shape.runs();
    while pairs > 1 && pairs * 2 * 127 * largest > i16::MAX as usize {
        pairs /= 2;
    }
    pairs
}

impl Products for Maddubs {
    type Sum = Widening;
    const SIGNED: bool = true;

    #[inline(always)]
    fn begin(start: __m256i) -> Widening {
        Widening { wide: start, narrow: start }
    }

    #[inline(always)]
    unsafe fn dot<C: Coded>(sum: Widening, j: usize, w: __m256i, a: __m256i) -> Widening {
        let pairs = const { pairs(C::SHAPE) };
        // SAFETY: the machine has the set.
        unsafe {
            let products = if C::SHAPE.offset() == 128 {
                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))
            } else {
                _mm256_maddubs_epi16(w, a)
            };
            let narrow = if j.is_multiple_of(pairs) { products } else { _mm256_add_epi16(sum.narrow, products) };
            let wide = if j % pairs == pairs - 1 {
                _mm256_add_epi32(sum.wide, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)))
            } else {
                sum.wide
            };
            Widening { wide, narrow }
        }
    }

    #[inline(always)]
    fn finish(sum: Widening) -> __m256i {
        sum.wide
    }
}

/// [`Products`] of an instruction that adds four to 32 bits.
macro_rules! four_products {
    ($(#[$attribute:meta])* $name:ident, $instruction:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        $(#[$attribute])*
        impl Products for $name {
            type Sum = __m256i;
            const SIGNED: bool = false;

            #[inline(always)]
            fn begin(start: __m256i) -> __m256i {
                start
            }

            #[inline(always)]
            unsafe fn dot<C: Coded>(sum: __m256i, _j: usize, w: __m256i, a: __m256i) -> __m256i {
                // SAFETY: the machine has the set.
                unsafe { $instruction(sum, w, a) }
            }

            #[inline(always)]
            fn finish(sum: __m256i) -> __m256i {
                sum
            }
        }
    };
}

four_products!(
    /// AVX-VNNI.
    Vnni,
    _mm256_dpbusd_avx_epi32
);
four_products!(
    /// The same in the encoding of AVX-512, for machines without AVX-VNNI to test its arithmetic on.
    #[cfg(test)]
    Evex,
    _mm256_dpbusd_epi32
);

/// 256-bit vectors of bytes with the products `P`.
#[derive(Clone, Copy)]
pub(super) struct Ymm<P>(Avx2, std::marker::PhantomData<P>);

impl<P: Products> Proof for Ymm<P> {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the machine has the set.
        Self(unsafe { Avx2::assume() }, std::marker::PhantomData)
    }
}

impl<P: Products> Dot for Ymm<P> {
    type S = Avx2;
    type Sum = P::Sum;
    const HOLD: bool = false;
    const SIGNED: bool = P::SIGNED;
    const PREFETCH: usize = 2048;

    #[inline(always)]
    fn simd(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: `self` proves the set; to prefetch from any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    fn table(self, table: &[i8; 16], offset: u8) -> __m256i {
        // SAFETY: `self` proves the set; the table is 16 bytes.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_add_epi8(table, _mm256_set1_epi8(offset.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m256i {
        // SAFETY: `self` proves the set; a vector can be read.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    arithmetic! {
        fn bits(v: __m256i, left: i32, mask: u8) -> __m256i {
            let count = _mm_cvtsi32_si128(left.abs());
            let v = if left < 0 { _mm256_srl_epi16(v, count) } else { _mm256_sll_epi16(v, count) };
            _mm256_and_si256(v, _mm256_set1_epi8(mask.cast_signed()))
        }
        fn or(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        fn and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn flip(v: __m256i) -> __m256i { _mm256_xor_si256(v, _mm256_set1_epi8(-128)) }
        fn lookup(table: __m256i, codes: __m256i) -> __m256i { _mm256_shuffle_epi8(table, codes) }
        fn shl(v: __m256i, n: u32) -> __m256i { _mm256_sll_epi32(v, _mm_cvtsi32_si128(n.cast_signed())) }
    }

    #[inline(always)]
    fn begin(self, start: __m256i) -> P::Sum {
        P::begin(start)
    }

    #[inline(always)]
    fn dot<C: Coded>(self, sum: P::Sum, j: usize, codes: __m256i, activations: i32) -> P::Sum {
        // SAFETY: `self` proves the set.
        unsafe { P::dot::<C>(sum, j, codes, _mm256_set1_epi32(activations)) }
    }

    #[inline(always)]
    fn finish(self, sum: P::Sum) -> __m256i {
        P::finish(sum)
    }

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> __m256i {
        // SAFETY: `self` proves the set; eight bytes can be read.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(self, p: *const u8) -> __m256i {
        // SAFETY: `self` proves the set; eight bytes can be read.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(self, p: *const u8) -> __m256 {
        // SAFETY: `self` proves the set; eight bytes can be read.
        unsafe {
            let e = self.bytes(p);
            let one = self.0.splat_u(1);
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, one));
            // 2^-128 and 2^-127 for 0 and 1; below every other.
            let subnormal = _mm256_slli_epi32::<21>(_mm256_add_epi32(_mm256_and_si256(e, one), one));
            _mm256_castsi256_ps(_mm256_max_epi32(normal, subnormal))
        }
    }
}
