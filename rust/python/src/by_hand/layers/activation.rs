//! `SiluAndMul`: the gated activation of an MLP.

use nanovllm_backend::Backend;
use nanovllm_model::layers::activation;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::by_hand::arrays::Array;
use crate::device::{self, Device, download, on_device};
use crate::errors::backend_error;
use crate::guarded::Turns;

/// `silu(gate) * up` of rows that hold gate and up side by side.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct SiluAndMul {
    device: Device,
}

#[pymethods]
impl SiluAndMul {
    #[new]
    #[pyo3(signature = (*, device))]
    fn new(device: &str) -> PyResult<Self> {
        Ok(Self { device: device::named(device)? })
    }

    /// `[..., 2 n] -> [..., n]`.
    fn forward<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let x = Array::read(x, "x")?;
        let (rows, width) = (x.rows(), x.width());
        if !width.is_multiple_of(2) {
            return Err(PyValueError::new_err(format!("the last dimension of x must be even, got {width}")));
        }
        let out = on_device!(&self.device, device => {
            device.with(py, |backend| silu_and_mul(backend, &x.values, rows, width))?
        });
        let mut shape = x.shape;
        if let Some(last) = shape.last_mut() {
            *last = width / 2;
        }
        x.kind.floats(py, out.map_err(|e| backend_error(&e))?, &shape)
    }
}

fn silu_and_mul<B: Backend>(backend: &B, x: &[f32], rows: usize, width: usize) -> nanovllm_backend::Result<Vec<f32>> {
    let x = backend.upload(x, rows, width)?;
    let mut out = backend.tensor(rows, width / 2)?;
    activation::SiluAndMul::forward(backend, &x, &mut out);
    download(backend, &out)
}
