//! Root-mean-square norm for Python.

use std::sync::{Arc, Mutex, PoisonError};

use nanovllm_backend::{Backend, Error};
use nanovllm_model::layers::layernorm;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::Placed;
use crate::arrays::{Array, reserved};
use crate::device::{Device, on_device};
use crate::errors::backend_error;

/// A norm over the last dimension, its weight on a device.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct RMSNorm {
    device: Device,
    hidden_size: usize,
    eps: f32,
    /// Shared with the calls in progress, so that a new weight waits for none of them.
    norm: Mutex<Arc<dyn Norm>>,
}

#[pymethods]
impl RMSNorm {
    #[new]
    #[pyo3(signature = (hidden_size, eps, *, device))]
    fn new(py: Python<'_>, hidden_size: usize, eps: f64, device: &str) -> PyResult<Self> {
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(PyValueError::new_err(format!("eps must be finite and not negative, got {eps}")));
        }
        let (device, eps) = (Device::named(device)?, eps as f32);
        let mut ones = reserved(hidden_size)?;
        ones.resize(hidden_size, 1.0);
        let norm = Mutex::new(place(py, &device, &ones, eps)?);
        Ok(Self { device, hidden_size, eps, norm })
    }

    /// The weight, copied out in float32: `[hidden_size]`.
    #[getter]
    fn weight<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, numpy::PyArray1<f32>>> {
        Ok(numpy::PyArray1::from_vec(py, self.norm().weight(py)?))
    }

    /// Replaces the weight.
    #[setter]
    fn set_weight(&self, weight: &Bound<'_, PyAny>) -> PyResult<()> {
        let values = Array::read(weight, "weight")?;
        values.expect_shape("weight", &[Some(self.hidden_size)])?;
        let norm = place(weight.py(), &self.device, &values.values, self.eps)?;
        *self.norm.lock().unwrap_or_else(PoisonError::into_inner) = norm;
        Ok(())
    }

    /// The norm of each row of `x`, `[..., hidden_size]`.
    fn forward<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let x = self.rows_of(x, "x")?;
        let out = self.norm().forward(py, &x.values, x.rows())?;
        x.kind.floats(py, out, &x.shape)
    }

    /// `(norm(x + residual), x + residual)`, both of the type of `x`; neither argument is written to.
    fn add_forward<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        residual: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let (x, residual) = (self.rows_of(x, "x")?, self.rows_of(residual, "residual")?);
        if x.shape != residual.shape {
            let text = format!("x and residual must have the same shape, got {:?} and {:?}", x.shape, residual.shape);
            return Err(PyValueError::new_err(text));
        }
        let (out, sum) = self.norm().add_forward(py, &x.values, &residual.values, x.rows())?;
        Ok((x.kind.floats(py, out, &x.shape)?, x.kind.floats(py, sum, &x.shape)?))
    }
}

impl RMSNorm {
    fn norm(&self) -> Arc<dyn Norm> {
        Arc::clone(&self.norm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn rows_of(&self, value: &Bound<'_, PyAny>, name: &str) -> PyResult<Array> {
        let array = Array::read(value, name)?;
        if array.width() != self.hidden_size {
            let (expected, got) = (self.hidden_size, array.width());
            let text = format!("the last dimension of {name} must be hidden_size {expected}, got {got}");
            return Err(PyValueError::new_err(text));
        }
        Ok(array)
    }
}

/// A [`layernorm::RmsNorm`] on whichever backend. Rows are as wide as its weight.
trait Norm: Send + Sync {
    fn weight(&self, py: Python<'_>) -> PyResult<Vec<f32>>;
    fn forward(&self, py: Python<'_>, x: &[f32], rows: usize) -> PyResult<Vec<f32>>;
    fn add_forward(&self, py: Python<'_>, x: &[f32], residual: &[f32], rows: usize) -> PyResult<(Vec<f32>, Vec<f32>)>;
}

/// Uploads a weight.
fn place(py: Python<'_>, device: &Device, weight: &[f32], eps: f32) -> PyResult<Arc<dyn Norm>> {
    Ok(on_device!(device, device => {
        let weight = device.with(py, |backend| backend.upload(weight, 1, weight.len()))?;
        let weight = Arc::new(weight.map_err(|error| backend_error(&error))?);
        Arc::new(Placed { device: Arc::clone(device), layer: layernorm::RmsNorm::new(weight, eps) }) as Arc<dyn Norm>
    }))
}

impl<B: Backend> Norm for Placed<B, layernorm::RmsNorm<B>> {
    fn weight(&self, py: Python<'_>) -> PyResult<Vec<f32>> {
        self.device.with(py, |backend| backend.download(self.layer.parts().0))
    }

    fn forward(&self, py: Python<'_>, x: &[f32], rows: usize) -> PyResult<Vec<f32>> {
        let run = |backend: &mut B| {
            let width = x.len() / rows.max(1);
            let x = backend.upload(x, rows, width)?;
            let mut out = backend.tensor(rows, width)?;
            self.layer.forward(backend, &x, &mut out);
            Ok(backend.download(&out))
        };
        self.device.with(py, run)?.map_err(|error: Error| backend_error(&error))
    }

    fn add_forward(&self, py: Python<'_>, x: &[f32], residual: &[f32], rows: usize) -> PyResult<(Vec<f32>, Vec<f32>)> {
        let run = |backend: &mut B| {
            let width = x.len() / rows.max(1);
            let (x, mut residual) = (backend.upload(x, rows, width)?, backend.upload(residual, rows, width)?);
            let mut out = backend.tensor(rows, width)?;
            self.layer.add_forward(backend, &x, &mut residual, &mut out);
            Ok((backend.download(&out), backend.download(&residual)))
        };
        self.device.with(py, run)?.map_err(|error: Error| backend_error(&error))
    }
}
