//! Hands each stored tensor to the one parameter it belongs to.

use std::collections::BTreeSet;

use nanovllm_backend::{Backend, DType, WeightPart};

use crate::checkpoint::{Checkpoint, StoredTensor};
use crate::error::{LoadError, Result};

/// A checkpoint being loaded: every tensor is taken exactly once, or [`finish`](Self::finish) names it.
pub(crate) struct Weights<'a, B: Backend> {
    pub(crate) backend: &'a B,
    checkpoint: &'a Checkpoint,
    /// Names nobody has taken.
    left: BTreeSet<String>,
    missing: Vec<String>,
}

impl<'a, B: Backend> Weights<'a, B> {
    pub(crate) fn new(backend: &'a B, checkpoint: &'a Checkpoint) -> Self {
        let left = checkpoint.names().into_iter().collect();
        Self { backend, checkpoint, left, missing: Vec::new() }
    }

    /// Tensors nobody has taken yet.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }

    /// The tensor `name` of this shape; a missing one is noted for [`finish`](Self::finish).
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Option<StoredTensor<'a>>> {
        self.left.remove(name);
        self.checkpoint.check(name)?;
        let Some(tensor) = self.checkpoint.tensor(name) else {
            self.missing.push(name.to_owned());
            return Ok(None);
        };
        if tensor.shape != shape {
            let (name, got) = (tensor.name.to_owned(), tensor.shape.clone());
            return Err(LoadError::Shape { name, expected: shape.to_vec(), got });
        }
        Ok(Some(tensor))
    }

    /// The matrix `name`, `[rows, cols]`, packed for the device; its pages are released. A missing one is noted and stands
    /// empty until [`finish`](Self::finish) refuses the checkpoint.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<B::Weight> {
        let Some(tensor) = self.take(name, &[rows, cols])? else {
            return Ok(self.backend.pack(&WeightPart { dtype: DType::F32, rows: 0, cols, data: &[] })?);
        };
        let part = WeightPart { dtype: tensor.dtype, rows, cols, data: &tensor.data };
        let weight = self.backend.pack(&part).map_err(|e| LoadError::tensor(tensor.name, e))?;
        self.checkpoint.release(&tensor);
        Ok(weight)
    }

    /// The matrices `names` stacked by rows.
    pub(crate) fn stacked(&mut self, names: &[(String, usize)], cols: usize) -> Result<B::Weight> {
        let parts = names.iter().map(|(name, rows)| self.matrix(name, *rows, cols)).collect::<Result<_>>()?;
        Ok(self.backend.concat(parts)?)
    }

    /// The vector `name` in f32, `[len]`; empty if it is missing.
    fn values(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.take(name, &[len])?.map_or_else(|| Ok(Vec::new()), |tensor| tensor.to_f32())
    }

    /// The vector `name` on the device, `[1, len]`.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<B::Tensor> {
        let values = self.values(name, len)?;
        Ok(self.backend.upload(&values, 1, values.len())?)
    }

    /// The vectors `names` one after the other on the device, `[1, sum]`.
    pub(crate) fn stacked_vector(&mut self, names: &[(String, usize)]) -> Result<B::Tensor> {
        let mut values = Vec::new();
        for (name, len) in names {
            values.extend(self.values(name, *len)?);
        }
        Ok(self.backend.upload(&values, 1, values.len())?)
    }

    /// Element type of the tensor `name`.
    pub(crate) fn dtype(&self, name: &str) -> Option<DType> {
        self.checkpoint.dtype(name)
    }

    /// Says that `name`, if stored, is a copy of something else.
    pub(crate) fn ignore(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Checks that nothing was missing and nothing is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        // Old transformers stored this buffer; it follows from the configuration.
        self.left.retain(|name| !name.ends_with("rotary_emb.inv_freq"));
        if !self.missing.is_empty() {
            return Err(LoadError::MissingTensors { names: self.missing });
        }
        if !self.left.is_empty() {
            return Err(LoadError::UnknownTensors { names: self.left.into_iter().collect() });
        }
        Ok(())
    }
}
