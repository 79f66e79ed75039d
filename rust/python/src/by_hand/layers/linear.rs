//! `Linear`: one rank's part of a linear layer.

use nanovllm_backend::Backend;
use nanovllm_model::ParameterError;
use nanovllm_model::layers::linear;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::by_hand::arrays::Array;
use crate::by_hand::layers::parameter::{Parameter, parameter_error};
use crate::device::{self, Device, on_device};
use crate::guarded::Turns;

/// `y = x @ weight.T (+ bias)`.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Linear {
    device: Device,
}

#[pymethods]
impl Linear {
    #[new]
    #[pyo3(signature = (*, device))]
    fn new(device: &str) -> PyResult<Self> {
        Ok(Self { device: device::named(device)? })
    }

    /// `[..., inputs] -> [..., outputs]`.
    #[pyo3(signature = (x, weight, bias))]
    #[allow(clippy::needless_pass_by_value)] // pyo3 hands references to its own classes over by value
    fn forward<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        weight: Py<Parameter>,
        bias: Option<Py<Parameter>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let x = Array::read(x, "x")?;
        let face = LinearFace { weight, bias };
        let (outputs, inputs) = face.size();
        if x.width() != inputs {
            let text = format!("the last dimension of x must be {inputs}, as the weight's, got {}", x.width());
            return Err(PyValueError::new_err(text));
        }
        face.require("the layer", inputs, outputs)?;
        let out = on_device!(&self.device, device => {
            device.with(py, |backend| forward(backend, &face, &x))?
        });
        let mut shape = x.shape;
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        x.kind.floats(py, out.map_err(|e| parameter_error(&e))?, &shape)
    }
}

/// A Python object with the parameters of a linear layer.
#[derive(FromPyObject)]
pub(crate) struct LinearFace {
    weight: Py<Parameter>,
    bias: Option<Py<Parameter>>,
}

impl LinearFace {
    /// Numbers of outputs and of inputs.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.weight.get().size()
    }

    /// Checks weight and bias against the sizes of what is around the layer. Errors call it `name`.
    ///
    /// # Errors
    /// ValueError that names both sizes.
    pub(crate) fn require(&self, name: &str, inputs: usize, outputs: usize) -> PyResult<()> {
        let (rows, cols) = self.size();
        let bias = self.bias.as_ref().map_or(rows, |bias| bias.get().size().0);
        if (rows, cols) == (outputs, inputs) && bias == rows {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "{name} must have a weight [{outputs}, {inputs}] and no bias or one [{outputs}], got [{rows}, {cols}] and [{bias}]"
        )))
    }

    /// The layer on a device.
    pub(crate) fn bind<B: Backend>(&self, backend: &B) -> Result<linear::Linear<B>, ParameterError> {
        let bias = self.bias.as_ref().map(|bias| bias.get().uploaded(backend)).transpose()?;
        Ok(linear::Linear::new(self.weight.get().packed(backend)?, bias))
    }
}

fn forward<B: Backend>(backend: &B, face: &LinearFace, x: &Array) -> Result<Vec<f32>, ParameterError> {
    let layer = face.bind(backend)?;
    let mut out = backend.tensor(x.rows(), face.size().0)?;
    layer.forward(backend, &backend.upload(&x.values, x.rows(), x.width())?, &mut out);
    Ok(backend.download(&out))
}
