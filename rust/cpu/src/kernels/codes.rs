//! Rows of activations in the forms that the matmul kernels read.
//!
//! A quantised weight is multiplied with integer codes of the activations. Of each 32 neighbouring values of a row, a *block*,
//! the one of largest magnitude becomes 127 or -127, and the others are scaled alike. On a device that computes with 15 bits,
//! blocks are *wide*: codes go up to 127 x 128 and lie in two *planes* of bytes, such that a code is `128 * high + low`, and the
//! same byte products serve for either plane. Some weights have a scale for each half of a block, 16 inputs, a *run*.

use bytemuck::{Pod, Zeroable};

/// What the kernels need of a block besides its codes: its scale, and sums that are computed once for all weights that the block
/// is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BlockMeta {
    /// An activation is its code times this.
    pub(crate) scale: f32,
    /// Sum of the block's activations, which the minimum of a weight's block is multiplied with.
    pub(crate) sum: f32,
    /// Sum of the activations of each run, for weights with a minimum a run.
    pub(crate) run_sums: [f32; 2],
    /// Minus the sum of the codes of each run. Weights `w` are stored as unsigned codes with an offset, and
    /// `sum((w - offset) * a) = sum(w * a) - offset * sum(a)`: shifted left by the logarithm of the offset, this is where the sum
    /// of the products starts.
    pub(crate) run_starts: [i32; 2],
    /// -8 times the sum of the block's codes: where a sum over the whole block starts for an offset of 8.
    pub(crate) start8: i32,
    /// -128 times the sum of the block's codes, for an offset of 128.
    pub(crate) start128: i32,
}

impl BlockMeta {
    /// For a block of this scale with these sums of the codes of its runs.
    pub(crate) fn new(scale: f32, sums: [i32; 2]) -> Self {
        // Wrapping: a NaN or an infinity among the activations leaves a sum without meaning.
        let sum = sums[0].wrapping_add(sums[1]);
        Self {
            scale,
            sum: scale * sum as f32,
            run_sums: sums.map(|sum| scale * sum as f32),
            run_starts: sums.map(i32::wrapping_neg),
            start8: sum.wrapping_mul(-8),
            start128: sum.wrapping_mul(-128),
        }
    }
}

/// A block whose values are all smaller than this counts as zero, so that the inverse of its scale cannot overflow.
pub(crate) const TINY: f32 = 1e-30;
/// The largest code of a block; in a wide one, of its high plane. It is not 128, so that the products of two codes with bytes fit
/// the 16 bits that AVX2 adds them in.
pub(crate) const LARGEST: i32 = 127;
/// What one step of the high plane of a wide code stands for.
pub(crate) const STEP: i32 = 128;

/// All rows of one matmul, in every form: as they are, and converted by a [`ConvertKernel`](super::tile::ConvertKernel).
///
/// Converters write through these pointers, and after a barrier kernels read the form that their weights call for. The other forms
/// may hold anything.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// The activations, `[rows, cols]`.
    pub(crate) x: *const f32,
    /// Their codes in [-127, 127], or the high plane of wide ones, `[rows, cols]`.
    pub(crate) codes: *const i8,
    /// The low plane of wide codes, in [-64, 63], `[rows, cols]`.
    pub(crate) low: *const i8,
    /// One for each block, `[rows, cols / 32]`: the columns of quantised weights are whole blocks.
    pub(crate) meta: *const BlockMeta,
    /// The activations rounded to bf16, in pairs with the first in the low half, an odd last one paired with zero:
    /// `[rows, ceil(cols / 2)]`.
    pub(crate) pairs: *const u32,
    pub(crate) cols: usize,
}

// SAFETY: plain addresses; those who read or write through them say why they may.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}
