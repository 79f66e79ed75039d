//! `RotaryEmbedding`: the rotary position embedding, with its table on a device.

use std::any::Any;
use std::sync::Arc;

use nanovllm_backend::{Backend, Error};
use nanovllm_model::RopeConfig;
use nanovllm_model::layers::rotary_embedding;
use nanovllm_service::Exclusive;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::arguments::count;
use crate::by_hand::arrays::{Array, Integers};
use crate::device::{self, on_device};
use crate::errors::{backend_error, load_error};
use crate::guarded::Turns;

/// A table of cosines and sines on a device.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct RotaryEmbedding {
    head_size: usize,
    max_position: usize,
    rotate: Box<dyn Rotate>,
}

#[pymethods]
impl RotaryEmbedding {
    /// `rope_scaling` is the JSON text of config.json's value of that name.
    #[new]
    #[pyo3(signature = (head_size, max_position, base, rope_scaling, *, device))]
    fn new(
        py: Python<'_>,
        head_size: &Bound<'_, PyAny>,
        max_position: &Bound<'_, PyAny>,
        base: f64,
        rope_scaling: &str,
        device: &str,
    ) -> PyResult<Self> {
        let (head_size, max_position) = (count(head_size, "head_size")?, count(max_position, "max_position")?);
        check_head_size(head_size)?;
        if !(base.is_finite() && base > 0.0) {
            return Err(PyValueError::new_err(format!("base must be finite and positive, got {base}")));
        }
        let scaling: Value = serde_json::from_str(rope_scaling)
            .map_err(|error| PyValueError::new_err(format!("rope_scaling is not JSON: {error}")))?;
        let config = json!({ "rope_theta": base, "max_position_embeddings": max_position, "rope_scaling": scaling });
        let config = RopeConfig::from_json(&config).map_err(|error| load_error(&error))?;
        let rotate = on_device!(device::named(device)?, device => {
            let layer = device.with(py, |backend| {
                rotary_embedding::RotaryEmbedding::new(backend, &config, head_size, max_position)
            })?;
            Box::new(Placed { layer: layer.map_err(|error| load_error(&error))?, device }) as Box<dyn Rotate>
        });
        Ok(Self { head_size, max_position, rotate })
    }

    /// The table in float32, `[max_position, 1, head_size]`: cosines, then sines.
    #[getter]
    fn cos_sin_cache<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let table = PyArray1::from_vec(py, self.rotate.table(py)?);
        Ok(table.reshape([self.max_position, 1, self.head_size])?.into_any())
    }

    /// Query and key heads `[n, heads, head_size]`, rotated by their `positions [n]`.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        positions: &Bound<'py, PyAny>,
        query: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let positions = Integers::<u32>::read(positions, "positions", 1, "positions in a sequence")?.values;
        if let Some((i, position)) = positions.iter().enumerate().find(|&(_, &p)| p as usize >= self.max_position) {
            let text = format!("positions[{i}] is {position}, the table ends before {}", self.max_position);
            return Err(PyValueError::new_err(text));
        }
        let rotated = |value: &Bound<'py, PyAny>, name: &str| {
            let heads = Array::read(value, name)?;
            heads.expect_shape(name, &[Some(positions.len()), None, Some(self.head_size)])?;
            let out = self.rotate.rotate(py, &heads.values, heads.shape[1], self.head_size, &positions)?;
            heads.kind.floats(py, out, &heads.shape)
        };
        Ok((rotated(query, "query")?, rotated(key, "key")?))
    }
}

/// Rotates each row of `x`, `[..., n]`, by cosines and sines that broadcast to `[..., n / 2]`.
#[pyfunction]
#[pyo3(signature = (x, cos, sin, *, device))]
pub(crate) fn apply_rotary_emb<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    cos: &Bound<'py, PyAny>,
    sin: &Bound<'py, PyAny>,
    device: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let x = Array::read(x, "x")?;
    let (rows, width) = (x.rows(), x.width());
    check_head_size(width)?;
    let half = [&x.shape[..x.shape.len() - 1], &[width / 2]].concat();
    let cos = Array::read(cos, "cos")?.broadcast("cos", &half)?;
    let sin = Array::read(sin, "sin")?.broadcast("sin", &half)?;
    let table: Vec<f32> = cos
        .chunks_exact(width / 2)
        .zip(sin.chunks_exact(width / 2))
        .flat_map(|(cos, sin)| [cos, sin].concat())
        .collect();
    let positions: Vec<u32> = (0..u32::try_from(rows)?).collect();
    let out = on_device!(device::named(device)?, device => {
        device.with(py, |backend| rotate_by(backend, &table, width, &x.values, &positions))?
    });
    x.kind.floats(py, out.map_err(|error| backend_error(&error))?, &x.shape)
}

/// Rotates each row of `x` by a row of a table of its own.
fn rotate_by<B: Backend>(
    backend: &B,
    table: &[f32],
    width: usize,
    x: &[f32],
    positions: &[u32],
) -> Result<Vec<f32>, Error> {
    let cos_sin_cache = backend.upload(table, positions.len(), width)?;
    rotary_embedding::RotaryEmbedding { cos_sin_cache }.rotate(backend, x, 1, width, positions)
}

fn check_head_size(head_size: usize) -> PyResult<()> {
    if head_size == 0 || !head_size.is_multiple_of(2) {
        return Err(PyValueError::new_err(format!("the size of a head must be even and positive, got {head_size}")));
    }
    // Far above any model; a table is made before memory can be asked for.
    if head_size > 1 << 20 {
        return Err(PyValueError::new_err(format!("the size of a head must be at most {}, got {head_size}", 1 << 20)));
    }
    Ok(())
}

impl RotaryEmbedding {
    /// Positions the table has.
    pub(crate) fn max_position(&self) -> usize {
        self.max_position
    }

    /// Values in a head.
    pub(crate) fn head_size(&self) -> usize {
        self.head_size
    }

    /// The table on a device of this type, if that is where it is.
    pub(crate) fn on<B: Backend>(&self) -> Option<&rotary_embedding::RotaryEmbedding<B>> {
        self.rotate.layer().downcast_ref()
    }
}

/// A [`rotary_embedding::RotaryEmbedding`] on whichever backend.
trait Rotate: Send + Sync {
    fn layer(&self) -> &dyn Any;
    fn table(&self, py: Python<'_>) -> PyResult<Vec<f32>>;
    fn rotate(&self, py: Python<'_>, x: &[f32], heads: usize, size: usize, positions: &[u32]) -> PyResult<Vec<f32>>;
}

/// The embedding with the device that holds its table.
struct Placed<B: Backend> {
    device: Arc<Exclusive<B>>,
    layer: rotary_embedding::RotaryEmbedding<B>,
}

impl<B: Backend> Rotate for Placed<B> {
    fn layer(&self) -> &dyn Any {
        &self.layer
    }

    fn table(&self, py: Python<'_>) -> PyResult<Vec<f32>> {
        self.device.with(py, |backend| backend.download(&self.layer.cos_sin_cache))
    }

    fn rotate(&self, py: Python<'_>, x: &[f32], heads: usize, size: usize, positions: &[u32]) -> PyResult<Vec<f32>> {
        let run = |backend: &mut B| self.layer.rotate(backend, x, heads, size, positions);
        self.device.with(py, run)?.map_err(|error| backend_error(&error))
    }
}
