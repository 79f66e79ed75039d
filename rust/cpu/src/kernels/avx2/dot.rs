//! Byte products on 256 bits: groups of 8 outputs, one vector for 8 outputs times 4 inputs.
//!
//! AVX2's `vpmaddubsw` adds two products of an unsigned and a signed byte in 16 bits and saturates. Codes of up to six bits are
//! safe as they are, and sums of several pairs too; larger ones are multiplied as |w| x sign(a, w), where 2 x 128 x 127 fits
//! because activations stop at 127. AVX-VNNI's `vpdpbusd` adds four products to 32 bits and needs neither.

use std::arch::x86_64::*;

use super::simd::Avx2;
use crate::kernels::quantized::{self, Dot};
use crate::kernels::simd::Simd;
use crate::layout::{Coded, FOURS, ForLayout, Layout, Shape, for_each};
use crate::matmul::{Tile, TileKernel};

/// The byte products of one instruction set.
trait Product: 'static {
    type Sum: Copy;
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

/// The kernels of a [`Product`], compiled with its features.
macro_rules! tiles {
    ($(#[$attribute:meta])* $name:ident, $product:ty, $features:literal) => {
        /// The kernels of every layout, for i8 blocks of activations and for wide ones.
        $(#[$attribute])*
        pub(super) fn $name() -> [[TileKernel; 2]; Layout::COUNT] {
            struct Tiles;
            impl ForLayout for Tiles {
                type Result = [TileKernel; 2];
                fn of<C: Coded>() -> [TileKernel; 2] {
                    [tile::<C, 1>, tile::<C, 2>]
                }
            }
            /// # Safety
            /// See [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn tile<C: Coded, const PLANES: usize>(tile: &Tile) {
                // SAFETY: passed on.
                unsafe { quantized::tile::<Ymm<$product>, C, PLANES>(tile) }
            }
            for_each::<Tiles>()
        }
    };
}

tiles!(tiles, Maddubs, "avx2,fma,f16c");
tiles!(tiles_vnni, Vnni, "avx2,fma,f16c,avxvnni");
tiles!(
    #[cfg(test)]
    tiles_evex,
    Evex,
    "avx2,fma,f16c,avx512vnni,avx512vl"
);

/// AVX2 alone.
struct Maddubs;

/// Sums of 32 bits, and of 16 bits yet to be added to them.
#[derive(Clone, Copy)]
struct Partial {
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

impl Product for Maddubs {
    type Sum = Partial;
    const SIGNED: bool = true;

    #[inline(always)]
    fn begin(start: __m256i) -> Partial {
        Partial { wide: start, narrow: start }
    }

    // SAFETY: the trait's contract.
    #[inline(always)]
    unsafe fn dot<C: Coded>(sum: Partial, j: usize, w: __m256i, a: __m256i) -> Partial {
        let pairs = const { pairs(C::SHAPE) };
        // SAFETY: the trait's contract.
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
            Partial { wide, narrow }
        }
    }

    #[inline(always)]
    fn finish(sum: Partial) -> __m256i {
        sum.wide
    }
}

/// A [`Product`] whose instruction adds four products to 32 bits.
macro_rules! four_products {
    ($(#[$attribute:meta])* $name:ident, $instruction:ident) => {
        $(#[$attribute])*
        struct $name;

        $(#[$attribute])*
        impl Product for $name {
            type Sum = __m256i;
            const SIGNED: bool = false;

            #[inline(always)]
            fn begin(start: __m256i) -> __m256i {
                start
            }

            // SAFETY: the trait's contract.
            #[inline(always)]
            unsafe fn dot<C: Coded>(sum: __m256i, _j: usize, w: __m256i, a: __m256i) -> __m256i {
                // SAFETY: the trait's contract.
                unsafe { $instruction(sum, w, a) }
            }

            #[inline(always)]
            fn finish(sum: __m256i) -> __m256i {
                sum
            }
        }
    };
}

four_products!(Vnni, _mm256_dpbusd_avx_epi32);
// The same in the encoding of AVX-512, for machines without AVX-VNNI to test its arithmetic on.
four_products!(
    #[cfg(test)]
    Evex,
    _mm256_dpbusd_epi32
);

/// 256-bit vectors with the byte products of `P`.
struct Ymm<P>(P);

impl<P: Product> Dot for Ymm<P> {
    type S = Avx2;
    type Sum = P::Sum;
    const ROWS: usize = 4;
    const HOLD: bool = false;
    const SIGNED: bool = P::SIGNED;
    const PREFETCH: usize = 2048;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: the trait's contract.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn bits(v: __m256i, left: i32, mask: u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe {
            let count = _mm_cvtsi32_si128(left.abs());
            let v = if left < 0 { _mm256_srl_epi16(v, count) } else { _mm256_sll_epi16(v, count) };
            _mm256_and_si256(v, _mm256_set1_epi8(mask.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn flip(v: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_xor_si256(v, _mm256_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn table(table: &[i8; 16], offset: u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_add_epi8(table, _mm256_set1_epi8(offset.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn lookup(table: __m256i, codes: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_shuffle_epi8(table, codes) }
    }

    #[inline(always)]
    unsafe fn shl(v: __m256i, n: u32) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_sll_epi32(v, _mm_cvtsi32_si128(n.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn to_f32(v: __m256i) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepi32_ps(v) }
    }

    #[inline(always)]
    unsafe fn begin(start: __m256i) -> P::Sum {
        P::begin(start)
    }

    #[inline(always)]
    unsafe fn dot<C: Coded>(sum: P::Sum, j: usize, codes: __m256i, activations: *const i8) -> P::Sum {
        // SAFETY: the trait's contract.
        unsafe { P::dot::<C>(sum, j, codes, _mm256_set1_epi32(activations.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn finish(sum: P::Sum) -> __m256i {
        P::finish(sum)
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    unsafe fn exponents(p: *const u8) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe {
            let e = Self::bytes(p);
            let one = Avx2::splat_u(1);
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, one));
            // 2^-128 and 2^-127 for 0 and 1; below every other.
            let subnormal = _mm256_slli_epi32::<21>(_mm256_add_epi32(_mm256_and_si256(e, one), one));
            _mm256_castsi256_ps(_mm256_max_epi32(normal, subnormal))
        }
    }
}
