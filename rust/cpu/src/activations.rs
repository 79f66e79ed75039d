//! Room for the activations of one matmul in the forms its kernels read, which [`codes`](crate::kernels::codes) describes.
//!
//! Every row is converted by itself, so its codes do not depend on the batch it is computed in.

use bytemuck::Pod;
use nanovllm_backend::Result;

use crate::buffer::Buffer;
use crate::kernels::codes::{BlockMeta, Rows};
use crate::layout::BLOCK;
use crate::tensor::Tensor;

/// How many bits of an activation a quantised weight is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationBits {
    /// One byte, as llama.cpp takes: fast where arithmetic is the limit, but less close to float32.
    Eight,
    /// Two bytes that hold 15 bits, for twice the byte products: the error is far below that of quantised weights themselves.
    #[default]
    Sixteen,
}

/// Memory that the rows of a matmul are converted in. One is kept for all matmuls of a device; it grows and never shrinks.
pub(crate) struct Activations {
    codes: Buffer<i8>,
    low: Buffer<i8>,
    meta: Buffer<BlockMeta>,
    pairs: Buffer<u32>,
}

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

    /// Makes room for `rows` rows of `cols` values in every form; whoever makes a tensor asks for room for its rows. Memory is mapped when it is first written, so a form that no
    /// weight calls for costs nothing.
    pub(crate) fn reserve(&mut self, rows: usize, cols: usize) -> Result<()> {
        grow(&mut self.codes, rows.saturating_mul(cols))?;
        grow(&mut self.low, rows.saturating_mul(cols))?;
        grow(&mut self.meta, rows.saturating_mul(cols.div_ceil(BLOCK)))?;
        grow(&mut self.pairs, rows.saturating_mul(cols.div_ceil(2)))
    }

    /// Where the rows of `x` are and where their converted forms go. Room for them must have been reserved.
    pub(crate) fn rows(&mut self, x: &Tensor) -> Rows {
        let (rows, cols) = (x.rows(), x.cols());
        // The other forms have grown with these.
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
