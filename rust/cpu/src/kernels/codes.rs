//! Rows of activations in the forms that the matmul kernels read.
//!
//! A quantised weight is multiplied with integer codes of the activations: of each 32 neighbouring values of a row, a *block*,
//! the one of largest magnitude becomes 127 and the others are scaled alike. A *wide* block has 15-bit codes instead, whose
//! largest is 127 x 128, in two *planes* of bytes: a code is `128 * high + low`, so the same byte products serve both. A block's
//! two halves of 16 inputs are its *runs*; some weights have a scale for each.

use bytemuck::{Pod, Zeroable};

/// What the kernels need of a block besides its codes: its scale, and sums computed once for all the weights that meet it.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BlockMeta {
    /// An activation is its code times this.
    pub(crate) scale: f32,
    /// Sum of the block's activations, which the minimum of a weight's block is multiplied with.
    pub(crate) sum: f32,
    /// Sum of the activations of each run, for weights with a minimum a run.
    pub(crate) run_sums: [f32; 2],
    /// Minus the sum of the codes of each run. Weights are stored as unsigned codes with an offset, and a sum of products with
    /// such codes that starts at minus the offset times the sum of the activations' codes is that of the signed weights. This
    /// is shifted left by the offset's logarithm to get there.
    pub(crate) run_starts: [i32; 2],
    /// Where the sum over the whole block starts for an offset of 8.
    pub(crate) start8: i32,
    /// Where the sum over the whole block starts for an offset of 128.
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

/// A block whose values are all smaller than this counts as zero: the inverse of its scale would be infinite.
pub(crate) const TINY: f32 = 1e-30;
/// The largest code of a block; in a wide one, of its high plane.
pub(crate) const LARGEST: i32 = 127;
/// What one step of the high plane of a wide code stands for.
pub(crate) const STEP: i32 = 128;

/// All rows of one matmul, in every form: as they are, and converted by a [`ConvertKernel`](super::tile::ConvertKernel).
///
/// A kernel reads the form its weights call for; the others may hold anything.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// The activations, `[rows, cols]`.
    pub(crate) x: *const f32,
    /// Their codes in [-127, 127], or the high plane of wide ones, `[rows, cols]`.
    pub(crate) codes: *const i8,
    /// The low plane of wide codes, in [-64, 63], `[rows, cols]`.
    pub(crate) low: *const i8,
    /// One for each block, `[rows, cols / 32]`.
    pub(crate) meta: *const BlockMeta,
    /// The activations rounded to bf16, in pairs, an odd last one paired with zero: `[rows, ceil(cols / 2)]`.
    pub(crate) pairs: *const u32,
    pub(crate) cols: usize,
}

// SAFETY: plain addresses; those who read or write through them say why they may.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}
