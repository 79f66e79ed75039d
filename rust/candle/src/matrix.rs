//! Activation matrices: the contract's `Tensor`, named apart from candle's.

use candle_core::{DType, Device, Result, Tensor};

/// A row-major f32 matrix with a fixed capacity of rows and a current number of rows.
///
/// candle's operations make new tensors, so the capacity holds no memory: it is what an operation's result is checked
/// against.
pub struct Matrix {
    /// `[rows, cols]`, contiguous.
    data: Tensor,
    capacity: usize,
}

impl Matrix {
    /// Takes `data`, `[rows, cols]`; its rows are the capacity.
    pub(crate) fn new(data: Tensor) -> Result<Self> {
        let (capacity, _) = data.dims2()?;
        Ok(Self { data, capacity })
    }

    /// The current number of rows.
    pub fn rows(&self) -> usize {
        self.data.dims()[0]
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.data.dims()[1]
    }

    /// The current contents, `[rows, cols]`.
    pub(crate) fn data(&self) -> &Tensor {
        &self.data
    }

    /// Replaces the contents. Fails for more rows than the capacity or another number of columns.
    pub(crate) fn set(&mut self, data: &Tensor) -> Result<()> {
        let (rows, cols) = data.dims2()?;
        if rows > self.capacity || cols != self.cols() {
            candle_core::bail!("a result of {rows} x {cols} for a matrix of {} x {}", self.capacity, self.cols());
        }
        self.data = data.contiguous()?;
        Ok(())
    }

    /// Makes the matrix one of no rows.
    pub(crate) fn clear(&mut self, device: &Device) -> Result<()> {
        self.data = Tensor::zeros((0, self.cols()), DType::F32, device)?;
        Ok(())
    }
}
