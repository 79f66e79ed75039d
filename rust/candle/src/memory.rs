//! Allocation that gives an error where candle would abort the process.

use bytemuck::Zeroable;
use candle_core::{Device, Shape, Tensor, WithDType};
use nanovllm_backend::{Error, Result};

use crate::error::device_error;

/// A tensor of zeros.
///
/// candle would write the zeros; memory that the system zeroes is mapped when first touched, which is what a large
/// cache wants.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn zeros<T: WithDType + Zeroable>(device: &Device, dims: &[usize], what: &'static str) -> Result<Tensor> {
    let len = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let data = zeroed_vec::<T>(len.unwrap_or(usize::MAX), what)?;
    tensor(device, data, dims)
}

/// A tensor of `data`, row by row.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn tensor<T: WithDType>(device: &Device, data: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(data, shape.into(), device).map_err(|e| device_error(&e))
}

/// `len` zeros in host memory, mapped when first touched.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn zeroed_vec<T: Zeroable>(len: usize, what: &'static str) -> Result<Vec<T>> {
    let refused = |()| out_of_memory(len.saturating_mul(size_of::<T>()), what);
    bytemuck::allocation::try_zeroed_vec(len).map_err(refused)
}

/// Allocates `bytes` and frees them, right before candle, which aborts where it cannot, allocates as much.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn probe(bytes: usize, what: &'static str) -> Result<()> {
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| out_of_memory(bytes, what))
}

pub(crate) fn out_of_memory(bytes: usize, what: &'static str) -> Error {
    Error::OutOfMemory { what, bytes, reason: "the system refused".into() }
}
