//! Products of pairs of bf16, which AVX-512 BF16 adds to f32 sums.

use std::arch::x86_64::*;

use super::simd::Avx512;
use crate::kernels::codes::Rows;
use crate::kernels::generic::cached::Cached;
use crate::kernels::generic::dense::Dense;
use crate::kernels::generic::simd::{Proof, Simd};

/// Bytes of weights to fetch ahead of use: they stream from memory once, and the hardware's prefetcher stops at pages.
const PREFETCH: usize = 4096;

/// `sum` plus both products of the pairs in each lane.
///
/// # Safety
/// The machine has AVX-512 BF16.
#[inline(always)]
unsafe fn dot(sum: __m512, a: __m512i, b: u32) -> __m512 {
    // SAFETY: the machine has the set; the transmutes are between vectors of the same bits.
    unsafe {
        let b = _mm512_set1_epi32(b.cast_signed());
        _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b))
    }
}

/// bf16 weights, `[input / 2][lane][input % 2]`, multiplied with bf16 rows.
#[derive(Clone, Copy)]
pub(super) struct PairedWeights(Avx512);

impl Proof for PairedWeights {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the machine has the set.
        Self(unsafe { Avx512::assume() })
    }
}

impl Dense for PairedWeights {
    type S = Avx512;
    type W = __m512i;
    const TWO: bool = false;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn steps(self, rows: &Rows) -> usize {
        rows.cols.div_ceil(2)
    }

    #[inline(always)]
    unsafe fn weights(self, group: *const u8, step: usize) -> __m512i {
        // SAFETY: `self` proves the set; a group holds a vector of pairs for every step; prefetching beyond it is harmless.
        unsafe {
            let weight = group.add(step * Avx512::LANES * 4);
            _mm_prefetch::<_MM_HINT_T0>(weight.wrapping_add(PREFETCH).cast());
            _mm512_loadu_si512(weight.cast())
        }
    }

    #[inline(always)]
    unsafe fn add(self, sum: __m512, w: __m512i, rows: &Rows, row: usize, step: usize) -> __m512 {
        // SAFETY: `self` proves the set; a converted row has a pair for every step.
        unsafe { dot(sum, w, *rows.pairs.add(row * rows.cols.div_ceil(2) + step)) }
    }
}

/// A bf16 cache whose keys are multiplied with bf16 queries; values and sums stay f32.
#[derive(Clone, Copy)]
pub(super) struct PairedCache(Avx512);

impl Proof for PairedCache {
    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: the machine has the set.
        Self(unsafe { Avx512::assume() })
    }
}

impl Cached for PairedCache {
    type S = Avx512;
    type Element = u16;
    type Query = u32;
    type Keys = __m512i;
    const TOKEN: usize = 2;
    const STEPS: usize = 1;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn query(self, even: f32, odd: f32) -> u32 {
        let bits = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
        bits(even) | bits(odd) << 16
    }

    #[inline(always)]
    unsafe fn keys(self, p: *const u16, _step: usize) -> __m512i {
        // SAFETY: `self` proves the set; the pairs of sixteen tokens can be read.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    fn dot(self, acc: __m512, keys: __m512i, query: &u32, _step: usize) -> __m512 {
        // SAFETY: `self` proves the set.
        unsafe { dot(acc, keys, *query) }
    }

    #[inline(always)]
    unsafe fn values(self, p: *const u16) -> __m512 {
        // SAFETY: sixteen values can be read.
        unsafe { self.0.load_bf16(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut u16, v: __m512) {
        // SAFETY: sixteen values can be written.
        unsafe { self.0.store_bf16(p, v) }
    }
}
