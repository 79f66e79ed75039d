//! Rows of activations to blocks of codes.

use std::arch::x86_64::*;

use super::simd::Avx2;
use crate::kernels::codes::{BlockMeta, LARGEST, Rows, STEP, TINY};
use crate::kernels::generic::simd::{Proof, Simd};
use crate::layout::BLOCK;

/// Converts row `row` to blocks of codes, or to wide ones. Codes are rounded to the nearest, ties to even.
///
/// # Safety
/// As for [`ConvertKernel`](crate::kernels::tile::ConvertKernel); the machine has the features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn quantize<const WIDE: bool>(rows: &Rows, row: usize) {
    let Rows { x, codes, low, meta, cols, .. } = *rows;
    let most = if WIDE { LARGEST * STEP } else { LARGEST } as f32;
    // SAFETY: the machine has the features.
    let simd = unsafe { Avx2::assume() };
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff));
    // SAFETY: by the contract, `row` exists in each of the four arrays and is ours; every access is below its end.
    unsafe {
        let (x, codes, low) = (x.add(row * cols), codes.cast_mut().add(row * cols), low.cast_mut().add(row * cols));
        let meta = meta.cast_mut().add(row * (cols / BLOCK));
        for block in 0..cols / BLOCK {
            let mut v = [_mm256_setzero_ps(); 4];
            let mut largest = _mm256_setzero_ps();
            for (i, v) in v.iter_mut().enumerate() {
                *v = _mm256_loadu_ps(x.add(block * BLOCK + 8 * i));
                largest = _mm256_max_ps(largest, _mm256_and_ps(*v, magnitude));
            }
            let largest = simd.largest(largest);
            let inverse = _mm256_set1_ps(if largest > TINY { most / largest } else { 0.0 });
            let mut q = [_mm256_setzero_si256(); 4];
            for (q, v) in q.iter_mut().zip(v) {
                *q = _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse));
            }
            let sums = [reduce_add(_mm256_add_epi32(q[0], q[1])), reduce_add(_mm256_add_epi32(q[2], q[3]))];
            if WIDE {
                let mut rest = q;
                for (q, rest) in q.iter_mut().zip(&mut rest) {
                    *q = _mm256_srai_epi32::<7>(_mm256_add_epi32(*q, _mm256_set1_epi32(STEP / 2)));
                    *rest = _mm256_sub_epi32(*rest, _mm256_slli_epi32::<7>(*q));
                }
                _mm256_storeu_si256(low.add(block * BLOCK).cast(), narrow(rest));
            }
            _mm256_storeu_si256(codes.add(block * BLOCK).cast(), narrow(q));
            *meta.add(block) = BlockMeta::new(largest / most, sums);
        }
    }
}

/// 32 values in [-128, 127] as bytes, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow(q: [__m256i; 4]) -> __m256i {
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    // Undoes the lane order that packing 32 to 16 to 8 bits leaves.
    _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

#[inline]
#[target_feature(enable = "avx2")]
fn reduce_add(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
}
