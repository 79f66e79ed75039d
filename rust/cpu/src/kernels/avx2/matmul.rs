//! AVX2 matmul: groups of 8 outputs, one 256-bit load for 8 outputs times 4 inputs.
//!
//! Dense weights and the conversion of rows; [`dot`](super::dot) has the quantised weights.

use std::arch::x86_64::*;

use super::dot;
use crate::activations::{BlockMeta, LARGEST, Rows, STEP, TINY};
use crate::layout::BLOCK;
use crate::matmul::{MatmulKernels, Tile};

/// Rows of a packed group.
const LANES: usize = 8;

pub(crate) fn kernels() -> MatmulKernels {
    MatmulKernels {
        lanes: LANES,
        wide: false,
        quantize: [quantize::<false>, quantize::<true>],
        pair: None,
        f32: tile::<F32>,
        f16: tile::<F16>,
        bf16: tile::<Bf16>,
        quantized: dot::tiles(),
    }
}

/// [`kernels`] with the byte products of AVX-VNNI.
pub(crate) fn kernels_vnni() -> MatmulKernels {
    MatmulKernels { quantized: dot::tiles_vnni(), ..kernels() }
}

/// [`kernels`] with the byte products of AVX-512 VNNI on 256 bits, which are those of AVX-VNNI in another encoding: machines
/// with either test the same kernels.
#[cfg(test)]
pub(crate) fn kernels_evex() -> MatmulKernels {
    MatmulKernels { quantized: dot::tiles_evex(), ..kernels() }
}

/// f32 to i8 blocks: the largest magnitude of 32 becomes 127, or 127 x 128 in wide ones; ties to even.
///
/// # Safety
/// See [`crate::matmul::ConvertKernel`].
#[target_feature(enable = "avx2,fma")]
unsafe fn quantize<const WIDE: bool>(rows: &Rows, row: usize) {
    let Rows { x, codes, low, meta, cols, .. } = *rows;
    let most = if WIDE { LARGEST * STEP } else { LARGEST } as f32;
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
            let largest = reduce_max(largest);
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
fn reduce_max(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn reduce_add(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
}

/// A weight format: how `MR` rows accumulate over a group.
trait Kernel {
    /// Sums of rows `row..row + MR`.
    ///
    /// # Safety
    /// As for [`crate::matmul::TileKernel`], for these rows.
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m256; MR];
}

/// # Safety
/// See [`crate::matmul::TileKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<K: Kernel>(tile: &Tile) {
    let mut i = 0;
    // SAFETY: rows `i..i + MR` are within the tile.
    unsafe {
        while i + 4 <= tile.count {
            store(tile, i, K::rows::<4>(tile, tile.first + i));
            i += 4;
        }
        if i + 2 <= tile.count {
            store(tile, i, K::rows::<2>(tile, tile.first + i));
            i += 2;
        }
        if i < tile.count {
            store(tile, i, K::rows::<1>(tile, tile.first + i));
        }
    }
}

/// # Safety
/// Rows `i..i + MR` are within the tile.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<const MR: usize>(tile: &Tile, i: usize, sums: [__m256; MR]) {
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(tile.lanes as i32), lane);
    for (m, sum) in sums.into_iter().enumerate() {
        // SAFETY: `lanes` outputs of the row are ours by the tile's contract, and the mask ends there.
        unsafe { _mm256_maskstore_ps(tile.out.add((i + m) * tile.stride), mask, sum) };
    }
}

struct F32;
impl Kernel for F32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m256; MR] {
        // SAFETY: a group holds `cols` vectors of 8 f32.
        unsafe { dense(tile, row, |k| _mm256_loadu_ps(tile.weight.cast::<f32>().add(k * LANES))) }
    }
}

struct F16;
impl Kernel for F16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m256; MR] {
        // SAFETY: a group holds `cols` vectors of 8 f16.
        unsafe {
            dense(tile, row, |k| _mm256_cvtph_ps(_mm_loadu_si128(tile.weight.cast::<u16>().add(k * LANES).cast())))
        }
    }
}

struct Bf16;
impl Kernel for Bf16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m256; MR] {
        let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        // SAFETY: a group holds a vector of 8 pairs for every two inputs.
        unsafe {
            dense(tile, row, |k| {
                let pair = _mm256_loadu_si256(tile.weight.cast::<u32>().add(k / 2 * LANES).cast());
                let bits = if k % 2 == 0 { _mm256_slli_epi32::<16>(pair) } else { _mm256_and_si256(pair, high) };
                _mm256_castsi256_ps(bits)
            })
        }
    }
}

/// f32 rows times the vectors that `weight` gives for each input.
///
/// # Safety
/// As for [`crate::matmul::TileKernel`], for rows `row..row + MR`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dense<const MR: usize>(tile: &Tile, row: usize, weight: impl Fn(usize) -> __m256) -> [__m256; MR] {
    let Rows { x, cols, .. } = tile.rows;
    let mut sums = [_mm256_setzero_ps(); MR];
    for k in 0..cols {
        let w = weight(k);
        for (m, sum) in sums.iter_mut().enumerate() {
            // SAFETY: row `row + m` has `cols` values.
            *sum = _mm256_fmadd_ps(_mm256_set1_ps(unsafe { *x.add((row + m) * cols + k) }), w, *sum);
        }
    }
    sums
}
