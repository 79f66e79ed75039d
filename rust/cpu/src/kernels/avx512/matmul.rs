//! AVX-512 matmul: groups of 16 outputs, one 512-bit load for 16 outputs times 4 inputs.
//!
//! Dense weights and the conversion of rows; [`dot`](super::dot) has the quantised weights.

use std::arch::x86_64::*;

use crate::activations::{BlockMeta, LARGEST, Rows, STEP, TINY};
use crate::layout::BLOCK;
use crate::matmul::{MatmulKernels, Tile};

/// Rows of a packed group.
const LANES: usize = 16;
/// Bytes to fetch ahead of use: weights stream from memory once, and the hardware's prefetcher stops at pages.
const PREFETCH: usize = 4096;

/// The kernels for AVX-512 with VNNI.
pub(crate) fn kernels() -> MatmulKernels {
    MatmulKernels {
        lanes: LANES,
        wide: false,
        quantize: [quantize::<false>, quantize::<true>],
        pair: None,
        f32: tile::<F32>,
        f16: tile::<F16>,
        bf16: tile::<Bf16>,
        quantized: super::dot::tiles(),
    }
}

/// [`kernels`] with bf16 products where the machine has them.
pub(crate) fn kernels_bf16() -> MatmulKernels {
    MatmulKernels { pair: Some(pair), bf16: tile::<Bf16Pairs>, ..kernels() }
}

/// f32 to i8 blocks: the largest magnitude of 32 becomes 127, or 127 x 128 in wide ones; ties to even.
///
/// # Safety
/// See [`crate::matmul::ConvertKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn quantize<const WIDE: bool>(rows: &Rows, row: usize) {
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

/// f32 to bf16 pairs, an odd last value paired with zero.
///
/// # Safety
/// See [`crate::matmul::ConvertKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pair(rows: &Rows, row: usize) {
    let Rows { x, pairs, cols, .. } = *rows;
    // SAFETY: by the contract, `row` exists in both arrays and is ours; the mask keeps the last access below its end, and the
    // pairs of a row have room for `cols` rounded up to even.
    unsafe {
        let (x, pairs) = (x.add(row * cols), pairs.cast_mut().add(row * cols.div_ceil(2)).cast::<u16>());
        for k in (0..cols).step_by(16) {
            let left = (cols - k).min(16) as u32;
            let v = _mm512_maskz_loadu_ps(mask(left), x.add(k));
            let v: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(v));
            _mm256_mask_storeu_epi16(pairs.add(k).cast(), mask(left.next_multiple_of(2)), v);
        }
    }
}

/// The lowest `n <= 16` lanes.
fn mask(n: u32) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// A weight format: how `MR` rows accumulate over a group.
trait Kernel {
    /// Sums of rows `row..row + MR`.
    ///
    /// # Safety
    /// As for [`crate::matmul::TileKernel`], for these rows.
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m512; MR];
}

/// # Safety
/// See [`crate::matmul::TileKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile<K: Kernel>(tile: &Tile) {
    let mut i = 0;
    // SAFETY: rows `i..i + MR` are within the tile.
    unsafe {
        while i + 8 <= tile.count {
            store(tile, i, K::rows::<8>(tile, tile.first + i));
            i += 8;
        }
        if i + 4 <= tile.count {
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store<const MR: usize>(tile: &Tile, i: usize, sums: [__m512; MR]) {
    let mask = mask(tile.lanes as u32);
    for (m, sum) in sums.into_iter().enumerate() {
        // SAFETY: `lanes` outputs of the row are ours by the tile's contract, and the mask ends there.
        unsafe { _mm512_mask_storeu_ps(tile.out.add((i + m) * tile.stride), mask, sum) };
    }
}

struct F32;
impl Kernel for F32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m512; MR] {
        // SAFETY: a group holds `cols` vectors of 16 f32.
        unsafe { dense(tile, row, |k| _mm512_loadu_ps(tile.weight.cast::<f32>().add(k * LANES))) }
    }
}

struct F16;
impl Kernel for F16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m512; MR] {
        // SAFETY: a group holds `cols` vectors of 16 f16.
        unsafe {
            dense(tile, row, |k| _mm512_cvtph_ps(_mm256_loadu_si256(tile.weight.cast::<u16>().add(k * LANES).cast())))
        }
    }
}

struct Bf16;
impl Kernel for Bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m512; MR] {
        let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        // SAFETY: a group holds a vector of 16 pairs for every two inputs.
        unsafe {
            dense(tile, row, |k| {
                let pair = _mm512_loadu_si512(tile.weight.cast::<u32>().add(k / 2 * LANES).cast());
                let bits = if k % 2 == 0 { _mm512_slli_epi32::<16>(pair) } else { _mm512_and_si512(pair, high) };
                _mm512_castsi512_ps(bits)
            })
        }
    }
}

/// f32 rows times the vectors that `weight` gives for each input.
///
/// # Safety
/// As for [`crate::matmul::TileKernel`], for rows `row..row + MR`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn dense<const MR: usize>(tile: &Tile, row: usize, weight: impl Fn(usize) -> __m512) -> [__m512; MR] {
    let Rows { x, cols, .. } = tile.rows;
    let mut sums = [_mm512_setzero_ps(); MR];
    for k in 0..cols {
        let w = weight(k);
        for (m, sum) in sums.iter_mut().enumerate() {
            // SAFETY: row `row + m` has `cols` values.
            *sum = _mm512_fmadd_ps(_mm512_set1_ps(unsafe { *x.add((row + m) * cols + k) }), w, *sum);
        }
    }
    sums
}

struct Bf16Pairs;
impl Kernel for Bf16Pairs {
    // A call, as `tile` lacks this instruction set; one for a group of outputs and eight rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
    unsafe fn rows<const MR: usize>(tile: &Tile, row: usize) -> [__m512; MR] {
        let (pairs, n) = (tile.rows.pairs, tile.rows.cols.div_ceil(2));
        let mut sums = [_mm512_setzero_ps(); MR];
        // SAFETY: a group holds `n` vectors of 16 pairs, a row `n` pairs; a vector of pairs and one of bf16 are the same bits;
        // prefetching past the end is harmless.
        unsafe {
            for k in 0..n {
                let weight = tile.weight.add(k * LANES * 4);
                _mm_prefetch::<_MM_HINT_T0>(weight.wrapping_add(PREFETCH).cast());
                let w: __m512bh = std::mem::transmute(_mm512_loadu_si512(weight.cast()));
                for (m, sum) in sums.iter_mut().enumerate() {
                    let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(*pairs.add((row + m) * n + k) as i32));
                    *sum = _mm512_dpbf16_ps(*sum, w, a);
                }
            }
        }
        sums
    }
}
