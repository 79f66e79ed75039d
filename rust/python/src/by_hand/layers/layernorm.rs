//! `RMSNorm`: the root-mean-square norm.

use nanovllm_backend::Backend;
use nanovllm_model::ParameterError;
use nanovllm_model::layers::layernorm::RmsNorm;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::by_hand::arrays::Array;
use crate::by_hand::layers::parameter::{Parameter, parameter_error};
use crate::device::{self, Device, download, on_device};
use crate::guarded::Turns;

/// A norm over the last dimension.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct RMSNorm {
    device: Device,
    eps: f32,
}

#[pymethods]
impl RMSNorm {
    #[new]
    #[pyo3(signature = (eps, *, device))]
    fn new(eps: f64, device: &str) -> PyResult<Self> {
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(PyValueError::new_err(format!("eps must be finite and not negative, got {eps}")));
        }
        Ok(Self { device: device::named(device)?, eps: eps as f32 })
    }

    /// The norm of each row of `x`, as wide as `weight`.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        weight: &Bound<'py, Parameter>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (weight, x) = (weight.get(), Array::read(x, "x")?);
        check_width(&x, "x", weight)?;
        let out = on_device!(&self.device, device => {
            device.with(py, |backend| rms_norm(backend, weight, self.eps, &x))?
        });
        x.kind.floats(py, out.map_err(|error| parameter_error(&error))?, &x.shape)
    }

    /// `(norm(x + residual), x + residual)`, both of the type of `x`; neither argument is written to.
    fn add_forward<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        residual: &Bound<'py, PyAny>,
        weight: &Bound<'py, Parameter>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let (weight, x, residual) = (weight.get(), Array::read(x, "x")?, Array::read(residual, "residual")?);
        check_width(&x, "x", weight)?;
        if x.shape != residual.shape {
            let text = format!("x and residual must have the same shape, got {:?} and {:?}", x.shape, residual.shape);
            return Err(PyValueError::new_err(text));
        }
        let out = on_device!(&self.device, device => {
            device.with(py, |backend| add_rms_norm(backend, weight, self.eps, &x, &residual))?
        });
        let (out, sum) = out.map_err(|error| parameter_error(&error))?;
        Ok((x.kind.floats(py, out, &x.shape)?, x.kind.floats(py, sum, &x.shape)?))
    }
}

fn check_width(x: &Array, name: &str, weight: &Parameter) -> PyResult<()> {
    let (expected, got) = (weight.size().0, x.width());
    if got != expected {
        let text = format!("the last dimension of {name} must be {expected}, as the weight's, got {got}");
        return Err(PyValueError::new_err(text));
    }
    Ok(())
}

fn rms_norm<B: Backend>(backend: &B, weight: &Parameter, eps: f32, x: &Array) -> Result<Vec<f32>, ParameterError> {
    let norm = RmsNorm::new(weight.uploaded(backend)?, eps);
    let mut out = backend.tensor(x.rows(), x.width())?;
    norm.forward(backend, &backend.upload(&x.values, x.rows(), x.width())?, &mut out);
    Ok(download(backend, &out)?)
}

fn add_rms_norm<B: Backend>(
    backend: &B,
    weight: &Parameter,
    eps: f32,
    x: &Array,
    residual: &Array,
) -> Result<(Vec<f32>, Vec<f32>), ParameterError> {
    let norm = RmsNorm::new(weight.uploaded(backend)?, eps);
    let mut sum = backend.upload(&residual.values, x.rows(), x.width())?;
    let mut out = backend.tensor(x.rows(), x.width())?;
    norm.add_forward(backend, &backend.upload(&x.values, x.rows(), x.width())?, &mut sum, &mut out);
    Ok((download(backend, &out)?, download(backend, &sum)?))
}
