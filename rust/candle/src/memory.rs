//! Allocation that fails instead of aborting.

use bytemuck::Zeroable;
use candle_core::{Device, Shape, Tensor, WithDType};
use nanovllm_backend::{Error, Result};

use crate::error::device_error;

/// A zeroed tensor.
///
/// candle fills host memory by writing it; memory that the system zeroes is mapped when first touched, which is what a large
/// cache wants.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn zeros<T: WithDType + Zeroable>(device: &Device, dims: &[usize], what: &'static str) -> Result<Tensor> {
    let len = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let data = zeroed_vec::<T>(len.unwrap_or(usize::MAX), what)?;
    tensor(device, data, dims)
}

/// A tensor of `data`.
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

/// Asks for `bytes` and gives them back, before candle allocates as much: it aborts where it cannot.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn probe(bytes: usize, what: &'static str) -> Result<()> {
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| out_of_memory(bytes, what))
}

pub(crate) fn out_of_memory(bytes: usize, what: &'static str) -> Error {
    Error::OutOfMemory { what, bytes, reason: "the system refused".into() }
}
