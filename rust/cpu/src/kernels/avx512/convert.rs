//! Rows of activations to blocks of codes, and to pairs of bf16.

use std::arch::x86_64::*;

use super::simd::first;
use crate::kernels::codes::{BlockMeta, LARGEST, Rows, STEP, TINY};
use crate::layout::BLOCK;

/// Converts row `row` to blocks of codes, or to wide ones. Codes are rounded to the nearest, ties to even.
///
/// # Safety
/// As for [`ConvertKernel`](crate::kernels::tile::ConvertKernel); the machine has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn quantize<const WIDE: bool>(rows: &Rows, row: usize) {
    let Rows { x, codes, low: low_plane, meta, cols, .. } = *rows;
    let most = if WIDE { LARGEST * STEP } else { LARGEST } as f32;
    // SAFETY: by the contract, `row` exists in each of the four arrays and is ours; every access is below its end.
    unsafe {
        let x = x.add(row * cols);
        let meta = meta.cast_mut().add(row * (cols / BLOCK));
        for block in 0..cols / BLOCK {
            let low = _mm512_loadu_ps(x.add(block * BLOCK));
            let high = _mm512_loadu_ps(x.add(block * BLOCK + 16));
            let largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
            let inverse = _mm512_set1_ps(if largest > TINY { most / largest } else { 0.0 });
            let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
            let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
            for (half, q) in [low, high].into_iter().enumerate() {
                let at = row * cols + block * BLOCK + 16 * half;
                let mut top = q;
                if WIDE {
                    top = _mm512_srai_epi32::<7>(_mm512_add_epi32(q, _mm512_set1_epi32(STEP / 2)));
                    let rest = _mm512_sub_epi32(q, _mm512_slli_epi32::<7>(top));
                    _mm_storeu_si128(low_plane.cast_mut().add(at).cast(), _mm512_cvtsepi32_epi8(rest));
                }
                _mm_storeu_si128(codes.cast_mut().add(at).cast(), _mm512_cvtsepi32_epi8(top));
            }
            let sums = [_mm512_reduce_add_epi32(low), _mm512_reduce_add_epi32(high)];
            *meta.add(block) = BlockMeta::new(largest / most, sums);
        }
    }
}

/// Converts row `row` to pairs of bf16, an odd last value paired with zero.
///
/// # Safety
/// As for [`ConvertKernel`](crate::kernels::tile::ConvertKernel); the machine has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pair(rows: &Rows, row: usize) {
    let Rows { x, pairs, cols, .. } = *rows;
    // SAFETY: by the contract, `row` exists in both arrays and is ours; the mask keeps the last access below its end, and the
    // pairs of a row have room for `cols` rounded up to even.
    unsafe {
        let (x, pairs) = (x.add(row * cols), pairs.cast_mut().add(row * cols.div_ceil(2)).cast::<u16>());
        for k in (0..cols).step_by(16) {
            let left = (cols - k).min(16);
            let v = _mm512_maskz_loadu_ps(first(left), x.add(k));
            let v: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(v));
            _mm256_mask_storeu_epi16(pairs.add(k).cast(), first(left.next_multiple_of(2)), v);
        }
    }
}
