//! Activation matrices.

use candle_core::{DType, Device, Result};

/// A row-major f32 matrix with a fixed capacity of rows and a current number of rows.
///
/// candle's operations make new tensors, so the capacity holds no memory: it is what an operation's result is checked against.
pub struct Tensor {
    /// `[rows, cols]`, contiguous.
    data: candle_core::Tensor,
    capacity: usize,
}

impl Tensor {
    /// Takes `data`, `[rows, cols]`; its rows are the capacity.
    pub(crate) fn new(data: candle_core::Tensor) -> Result<Self> {
        let (capacity, _) = data.dims2()?;
        Ok(Self { data, capacity })
    }

    /// Current rows.
    pub fn rows(&self) -> usize {
        self.data.dims()[0]
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.data.dims()[1]
    }

    /// The current rows, `[rows, cols]`.
    pub(crate) fn data(&self) -> &candle_core::Tensor {
        &self.data
    }

    /// Replaces the contents; the shape must fit.
    pub(crate) fn set(&mut self, data: &candle_core::Tensor) -> Result<()> {
        let (rows, cols) = data.dims2()?;
        if rows > self.capacity || cols != self.cols() {
            candle_core::bail!("a result of {rows} x {cols} for a matrix of {} x {}", self.capacity, self.cols());
        }
        self.data = data.contiguous()?;
        Ok(())
    }

    /// Drops all rows.
    pub(crate) fn clear(&mut self, device: &Device) -> Result<()> {
        self.data = candle_core::Tensor::zeros((0, self.cols()), DType::F32, device)?;
        Ok(())
    }
}
