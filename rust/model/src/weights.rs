//! Hands each stored tensor to the one parameter it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nanovllm_backend::{Backend, DType};

use crate::error::{LoadError, Result};
use crate::parameter::Parameter;
use crate::sharding::Sharding;
use crate::stored_tensor::{StoredTensor, TensorSource};

/// A checkpoint being loaded: every tensor is taken exactly once, or [`finish`](Self::finish) names it.
pub(crate) struct Weights<'a, B: Backend> {
    pub(crate) backend: &'a B,
    checkpoint: &'a dyn TensorSource,
    /// The names of the tensors that nobody has taken yet.
    left: BTreeSet<String>,
    /// The names that were asked for and are not in the checkpoint.
    missing: Vec<String>,
    /// Whether every matrix so far is stored in F32.
    is_f32: bool,
    /// How many matrices of a type (the first) the device keeps as another (the second).
    converted: BTreeMap<(DType, DType), usize>,
}

impl<'a, B: Backend> Weights<'a, B> {
    pub(crate) fn new(backend: &'a B, checkpoint: &'a dyn TensorSource) -> Self {
        let left = checkpoint.names().into_iter().collect();
        Self { backend, checkpoint, left, missing: Vec::new(), is_f32: true, converted: BTreeMap::new() }
    }

    /// The number of tensors that nobody has taken yet.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether there is a tensor called `name` that nobody has taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.contains(name)
    }

    /// Takes the tensor called `name`; a missing one is noted for [`finish`](Self::finish).
    fn take(&mut self, name: &str) -> Result<Option<StoredTensor<'a>>> {
        self.left.remove(name);
        let tensor = self.checkpoint.tensor(name)?;
        if tensor.is_none() {
            self.missing.push(name.to_owned());
        }
        Ok(tensor)
    }

    /// The matrix that the tensors `names` make up, packed for the device tensor by tensor, their pages released. A missing
    /// one adds no rows until [`finish`](Self::finish) refuses the checkpoint.
    pub(crate) fn matrix(&mut self, names: &[String], sharding: Sharding) -> Result<Arc<B::Weight>> {
        let mut parameter = Parameter::new(sharding);
        let mut parts = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let Some(tensor) = self.take(name)? else { continue };
            let (stored, dtype) = (tensor.name, tensor.dtype);
            let cols = tensor.shape.last().copied().unwrap_or(1);
            parameter.load(index, tensor).map_err(|e| LoadError::parameter(stored, e))?;
            parts.push(parameter.pack_shard(self.backend, index).map_err(|e| LoadError::tensor(stored, e))?);
            self.checkpoint.release(stored);
            self.is_f32 &= dtype == DType::F32;
            let kept = self.backend.stored_as(dtype, cols);
            if kept != dtype {
                *self.converted.entry((dtype, kept)).or_default() += 1;
            }
        }
        if parts.is_empty() {
            parts.push(parameter.pack_shard(self.backend, 0)?);
        }
        Ok(Arc::new(self.backend.concat(parts)?))
    }

    /// The vector that the tensors `names` make up, on the device in f32, `[1, len]`; empty if one is missing.
    pub(crate) fn vector(&mut self, names: &[String], sharding: Sharding) -> Result<Arc<B::Tensor>> {
        let mut parameter = Parameter::new(sharding);
        for (index, name) in names.iter().enumerate() {
            if let Some(tensor) = self.take(name)? {
                let name = tensor.name;
                tensor.check_readable()?;
                parameter.load(index, tensor).map_err(|e| LoadError::parameter(name, e))?;
            }
        }
        let values = match parameter.unloaded().next() {
            None => parameter.to_f32().map_err(|e| LoadError::parameter(&names.join(", "), e))?,
            Some(_) => Vec::new(),
        };
        Ok(Arc::new(self.backend.upload(&values, 1, values.len())?))
    }

    /// A line for every type that the device has no kernels for and stores as another.
    pub(crate) fn notes(&self) -> Vec<String> {
        let note = |(&(from, to), &n): (&(DType, DType), &usize)| {
            let plural = if n == 1 { "" } else { "s" };
            format!("{n} tensor{plural} of type {from} stored as {to}, for which there are kernels")
        };
        self.converted.iter().map(note).collect()
    }

    /// The type to keep keys and values in unless the user asks for another: as exact as the matrices loaded so far.
    pub(crate) fn kv_cache_dtype(&self) -> DType {
        if self.is_f32 { DType::F32 } else { DType::Bf16 }
    }

    /// Counts the tensor called `name`, if there is one, as taken: it is a copy of another.
    pub(crate) fn ignore(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Checks that nothing was missing and nothing is left. Tables and buffers are made after it: a configuration that
    /// the tensors do not bear out must not decide how large they are.
    pub(crate) fn finish(&mut self) -> Result<()> {
        // Old transformers stored this buffer; it follows from the configuration.
        self.left.retain(|name| !name.ends_with("rotary_emb.inv_freq"));
        if !self.missing.is_empty() {
            return Err(LoadError::MissingTensors { names: std::mem::take(&mut self.missing) });
        }
        if !self.left.is_empty() {
            return Err(LoadError::UnknownTensors { names: std::mem::take(&mut self.left).into_iter().collect() });
        }
        Ok(())
    }
}
