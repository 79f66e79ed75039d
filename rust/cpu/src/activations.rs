//! Activations in the form a weight's format multiplies with: i8 blocks for quantised weights, bf16 pairs for bf16 ones.
//!
//! A wide block has 15-bit codes in two planes, `128 * high + low`, so that the same byte products serve.
//!
//! Every row is converted by itself, so its codes do not depend on the batch.

use bytemuck::{Pod, Zeroable};
use nanovllm_backend::Result;

use crate::buffer::Buffer;
use crate::layout::BLOCK;
use crate::tensor::Tensor;

/// How many bits of an activation a quantised weight is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationBits {
    /// One byte, what llama.cpp takes: fast where arithmetic is the limit, at some cost in agreement with float32.
    Eight,
    /// Two byte planes holding 15 bits: as good as float32 beside the weights' own quantisation, for twice the byte products.
    #[default]
    Sixteen,
}

/// What goes with 32 i8 codes of an activation row.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // portable kernels subtract the offset instead
pub(crate) struct BlockMeta {
    /// Scale: the value is `code * scale`.
    pub(crate) scale: f32,
    /// Scaled sum of the codes: what a weight's minimum is multiplied with.
    pub(crate) sum: f32,
    /// The same of each 16.
    pub(crate) run_sums: [f32; 2],
    /// Minus the sum of each 16 codes: times a power of two, where the sums of their products with offset codes start.
    pub(crate) run_starts: [i32; 2],
    /// -8 times the sum of the codes: where the sum of their products with codes stored with an offset of 8 starts.
    pub(crate) start8: i32,
    /// The same for an offset of 128.
    pub(crate) start128: i32,
}

impl BlockMeta {
    /// For codes of this scale, with the sum of each 16.
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

/// Below this a block of activations counts as zero: the inverse of its scale would be infinite.
pub(crate) const TINY: f32 = 1e-30;
/// The largest code of a block, and the high plane's step in wide ones.
pub(crate) const LARGEST: i32 = 127;
/// What the high plane of a wide code counts.
pub(crate) const STEP: i32 = 128;

/// Scratch for the converted rows of one matmul; grows, never shrinks.
pub(crate) struct Activations {
    codes: Buffer<i8>,
    low: Buffer<i8>,
    meta: Buffer<BlockMeta>,
    pairs: Buffer<u32>,
}

/// The rows of one matmul as kernels read them.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // portable kernels take bf16 rows as f32
pub(crate) struct Rows {
    /// f32, `[rows, cols]`.
    pub(crate) x: *const f32,
    /// i8 codes in [-127, 127], the high plane of wide ones, `[rows, cols]`.
    pub(crate) codes: *const i8,
    /// The low plane of wide codes, in [-64, 63], `[rows, cols]`.
    pub(crate) low: *const i8,
    /// `[rows, cols / 32]`.
    pub(crate) meta: *const BlockMeta,
    /// bf16 pairs, `[rows, ceil(cols / 2)]`.
    pub(crate) pairs: *const u32,
    pub(crate) cols: usize,
}

// SAFETY: plain addresses; those who read or write through them say why they may.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Activations {
    pub(crate) fn new() -> Result<Self> {
        let what = "activation codes";
        Ok(Self {
            codes: Buffer::zeroed(0, what)?,
            low: Buffer::zeroed(0, what)?,
            meta: Buffer::zeroed(0, what)?,
            pairs: Buffer::zeroed(0, what)?,
        })
    }

    /// Room for `rows` rows of `cols` values in every form; what is not used is never mapped.
    pub(crate) fn reserve(&mut self, rows: usize, cols: usize) -> Result<()> {
        grow(&mut self.codes, rows.saturating_mul(cols))?;
        grow(&mut self.low, rows.saturating_mul(cols))?;
        grow(&mut self.meta, rows.saturating_mul(cols.div_ceil(BLOCK)))?;
        grow(&mut self.pairs, rows.saturating_mul(cols.div_ceil(2)))
    }

    /// Addresses of the scratch for the rows of `x`, for which room was reserved.
    pub(crate) fn rows(&mut self, x: &Tensor) -> Rows {
        let (rows, cols) = (x.rows(), x.cols());
        assert!(rows * cols <= self.codes.len() && rows * cols.div_ceil(2) <= self.pairs.len(), "room for the codes");
        let x = x.as_slice().as_ptr();
        let codes = self.codes.as_mut_ptr().cast_const();
        Rows {
            x,
            codes,
            low: self.low.as_mut_ptr(),
            meta: self.meta.as_mut_ptr(),
            pairs: self.pairs.as_mut_ptr(),
            cols,
        }
    }
}

fn grow<T: Pod>(buffer: &mut Buffer<T>, len: usize) -> Result<()> {
    if buffer.len() < len {
        *buffer = Buffer::zeroed(len, "activation codes")?;
    }
    Ok(())
}
