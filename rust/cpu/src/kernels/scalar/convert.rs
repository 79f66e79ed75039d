//! Rows of activations to blocks of codes.

use crate::kernels::codes::{BlockMeta, LARGEST, Rows, STEP, TINY};
use crate::layout::BLOCK;

/// Converts row `row` to blocks of codes, or to wide ones. Codes are rounded to the nearest, ties to even.
///
/// # Safety
/// As for [`ConvertKernel`](crate::kernels::tile::ConvertKernel).
pub(super) unsafe fn quantize<const WIDE: bool>(rows: &Rows, row: usize) {
    let Rows { x, codes, low, meta, cols, .. } = *rows;
    // SAFETY: by the contract, `row` exists in each of the four arrays and is ours.
    let (x, codes, low, meta) = unsafe {
        (
            std::slice::from_raw_parts(x.add(row * cols), cols),
            std::slice::from_raw_parts_mut(codes.cast_mut().add(row * cols), cols),
            std::slice::from_raw_parts_mut(low.cast_mut().add(row * cols), cols),
            std::slice::from_raw_parts_mut(meta.cast_mut().add(row * (cols / BLOCK)), cols / BLOCK),
        )
    };
    let most = if WIDE { LARGEST * STEP } else { LARGEST } as f32;
    for (b, (x, meta)) in x.chunks_exact(BLOCK).zip(meta).enumerate() {
        let largest = x.iter().fold(0f32, |a, v| a.max(v.abs()));
        let inverse = if largest > TINY { most / largest } else { 0.0 };
        let mut sums = [0i32; 2];
        for (k, v) in x.iter().enumerate() {
            let q = (v * inverse).round_ties_even() as i32;
            let high = if WIDE { (q + STEP / 2).div_euclid(STEP) } else { q };
            codes[b * BLOCK + k] = high as i8;
            if WIDE {
                low[b * BLOCK + k] = (q - high * STEP) as i8;
            }
            let sum = &mut sums[k / (BLOCK / 2)];
            *sum = sum.wrapping_add(q);
        }
        *meta = BlockMeta::new(largest / most, sums);
    }
}
