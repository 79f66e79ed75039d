//! `VocabParallel`: one rank's part of the token embedding and of the output projection.

use nanovllm_backend::{Backend, DType};
use nanovllm_model::ParameterError;
use nanovllm_model::layers::embed_head::{ParallelLmHead, VocabParallelEmbedding};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::by_hand::arrays::{Array, Integers, is_tensor};
use crate::by_hand::layers::parameter::{Parameter, floats, parameter_error};
use crate::device::{self, Device, on_device};
use crate::guarded::Turns;

/// The rows of a matrix that a rank has a part of, by token id; and the product with it.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct VocabParallel {
    device: Device,
}

#[pymethods]
impl VocabParallel {
    #[new]
    #[pyo3(signature = (*, device))]
    fn new(device: &str) -> PyResult<Self> {
        Ok(Self { device: device::named(device)? })
    }

    /// Rows of the tokens `ids`, `[n] -> [n, width]`, of a vocabulary of `vocab_size`; the rank's own start at token
    /// `start`, and those of other ranks are zero.
    #[allow(clippy::needless_pass_by_value)] // pyo3 hands references to its own classes over by value
    fn embed<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        weight: Py<Parameter>,
        start: usize,
        vocab_size: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let is_torch = is_tensor(ids)?;
        let ids = token_ids(ids, vocab_size)?;
        let weight = weight.get();
        let (tokens, width) = weight.size();
        let own = |id: u32| (id as usize).checked_sub(start).filter(|&row| row < tokens);
        let rows: Vec<u32> = ids.iter().map(|&id| own(id).unwrap_or(0) as u32).collect();
        let out = on_device!(&self.device, device => {
            device.with(py, |backend| embed(backend, weight, &rows))?
        });
        let mut out = out.map_err(|e| parameter_error(&e))?;
        for (&id, row) in ids.iter().zip(out.chunks_exact_mut(width.max(1))) {
            if own(id).is_none() {
                row.fill(0.0);
            }
        }
        answer(py, out, &[ids.len(), width], weight.dtype(), is_torch)
    }

    /// Logits of the rank's tokens, `[rows, width] -> [rows, tokens]`, of the last row of each sequence where
    /// `cu_seqlens_q`, the offsets of their rows, is given.
    #[allow(clippy::needless_pass_by_value)] // pyo3 hands references to its own classes over by value
    fn logits<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        weight: Py<Parameter>,
        cu_seqlens_q: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let x = Array::read(x, "x")?;
        let (tokens, width) = weight.get().size();
        x.expect_shape("x", &[None, Some(width)])?;
        let rows = cu_seqlens_q.map(|offsets| last_rows(&offsets, x.rows())).transpose()?;
        let out = on_device!(&self.device, device => {
            device.with(py, |backend| logits(backend, weight.get(), &x, rows.as_deref()))?
        });
        let shape = [rows.map_or(x.rows(), |rows| rows.len()), tokens];
        x.kind.floats(py, out.map_err(|e| parameter_error(&e))?, &shape)
    }
}

/// Token ids `[n]` of a vocabulary of this size.
pub(crate) fn token_ids(ids: &Bound<'_, PyAny>, vocab_size: usize) -> PyResult<Vec<u32>> {
    let range = format!("below the {vocab_size} tokens of the vocabulary");
    let ids = Integers::<u32>::read(ids, "token ids", 1, &range)?.values;
    match ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
        Some((i, id)) => Err(PyValueError::new_err(format!("token ids must be {range}, got {id} at index {i}"))),
        None => Ok(ids),
    }
}

fn embed<B: Backend>(backend: &B, weight: &Parameter, rows: &[u32]) -> Result<Vec<f32>, ParameterError> {
    let mut out = backend.tensor(rows.len(), weight.size().1)?;
    VocabParallelEmbedding::new(weight.packed(backend)?).forward(backend, rows, &mut out);
    Ok(backend.download(&out))
}

fn logits<B: Backend>(
    backend: &B,
    weight: &Parameter,
    x: &Array,
    rows: Option<&[u32]>,
) -> Result<Vec<f32>, ParameterError> {
    let mut hidden = backend.upload(&x.values, x.rows(), x.width())?;
    if let Some(rows) = rows {
        let mut last = backend.tensor(rows.len(), x.width())?;
        backend.gather_rows(&hidden, rows, &mut last);
        hidden = last;
    }
    let mut out = backend.tensor(rows.map_or(x.rows(), <[u32]>::len), weight.size().0)?;
    ParallelLmHead::new(weight.packed(backend)?).forward(backend, &hidden, &mut out);
    Ok(backend.download(&out))
}

/// The last row of each sequence.
fn last_rows(cu_seqlens_q: &Bound<'_, PyAny>, rows: usize) -> PyResult<Vec<u32>> {
    let range = format!("offsets up to {rows}, the rows of x");
    let offsets = Integers::<u32>::read(cu_seqlens_q, "cu_seqlens_q", 1, &range)?.values;
    let last = |end: &u32| end.checked_sub(1).filter(|&row| (row as usize) < rows);
    let ends = offsets.get(1..).unwrap_or_default().iter();
    ends.map(|end| last(end).ok_or_else(|| PyValueError::new_err(format!("cu_seqlens_q must be {range}, got {end}"))))
        .collect()
}

/// Values as an array of the parameter's type, of the library that asked.
pub(crate) fn answer<'py>(
    py: Python<'py>,
    values: Vec<f32>,
    shape: &[usize],
    dtype: DType,
    is_torch: bool,
) -> PyResult<Bound<'py, PyAny>> {
    if !is_torch {
        return floats(py, values, shape, dtype);
    }
    let torch = py.import("torch")?;
    let name = match dtype {
        DType::F16 => "float16",
        DType::Bf16 => "bfloat16",
        _ => "float32",
    };
    torch
        .call_method1("from_numpy", (floats(py, values, shape, DType::F32)?,))?
        .call_method1("to", (torch.getattr(name)?,))
}
