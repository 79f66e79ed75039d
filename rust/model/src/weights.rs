//! Hands each stored tensor to the one parameter it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nanovllm_backend::{Backend, DType};
use nanovllm_gguf::FilePart;

use crate::error::{LoadError, ParameterError, Result};
use crate::expert_budget::ExpertBudget;
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
    /// How many tensors were skipped.
    skipped: usize,
    /// How much memory experts may take, where not all of them fit.
    pub(crate) expert_budget: Option<ExpertBudget>,
}

/// A matrix that stays in its file.
pub(crate) struct MappedMatrix {
    part: FilePart,
    dtype: DType,
    cols: usize,
    row_bytes: usize,
}

impl MappedMatrix {
    /// Appends rows of the matrix to `out`, widened to f32; rows are in range.
    ///
    /// # Errors
    /// Those of [`FilePart::read`].
    pub(crate) fn rows(&self, rows: &[u32], out: &mut Vec<f32>) -> std::result::Result<(), nanovllm_gguf::Error> {
        let bytes = self.part.read()?;
        let start = out.len();
        out.resize(start + rows.len() * self.cols, 0.0);
        for (&row, out) in rows.iter().zip(out[start..].chunks_exact_mut(self.cols)) {
            let from = row as usize * self.row_bytes;
            nanovllm_gguf::dequantize(self.dtype, &bytes[from..from + self.row_bytes], out)?;
        }
        Ok(())
    }
}

impl<'a, B: Backend> Weights<'a, B> {
    pub(crate) fn new(backend: &'a B, checkpoint: &'a dyn TensorSource) -> Self {
        let left = checkpoint.names().into_iter().collect();
        Self {
            backend,
            checkpoint,
            left,
            missing: Vec::new(),
            is_f32: true,
            converted: BTreeMap::new(),
            skipped: 0,
            expert_budget: None,
        }
    }

    /// The number of tensors that nobody has taken yet.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether there is a tensor called `name` that nobody has taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.contains(name)
    }

    /// Whether a tensor that was asked for is missing, so that [`finish`](Self::finish) will refuse the checkpoint.
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.missing.is_empty()
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
        self.assembled(names, sharding, None).map(Arc::new)
    }

    /// The same of an expert, not to be shared; where it does not fit in memory it stays in its file, if it can.
    pub(crate) fn expert(&mut self, names: &[String], sharding: Sharding) -> Result<B::Weight> {
        let mut budget = self.expert_budget.take();
        let weight = self.assembled(names, sharding, budget.as_mut());
        self.expert_budget = budget;
        weight
    }

    fn assembled(
        &mut self,
        names: &[String],
        sharding: Sharding,
        mut budget: Option<&mut ExpertBudget>,
    ) -> Result<B::Weight> {
        let mut parameter = Parameter::new(sharding);
        let mut parts = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let Some(tensor) = self.take(name)? else { continue };
            let (stored, dtype) = (tensor.name, tensor.dtype);
            let cols = tensor.shape.last().copied().unwrap_or(1);
            parameter.load(index, tensor).map_err(|e| LoadError::parameter(stored, e))?;
            self.is_f32 &= dtype == DType::F32;
            let fail = |error| LoadError::tensor(stored, error);
            if let Some(budget) = budget.as_deref_mut() {
                let packed = self.backend.packed_bytes(dtype, parameter.elements(index));
                if !budget.take(packed) {
                    let file = self.checkpoint.part(name).and_then(|part| parameter.place_of_shard(index, &part));
                    let mapped = file.as_ref().map(|file| parameter.map_shard(self.backend, index, file)).transpose();
                    if let (Some(file), Some(Some(mapped))) = (file, mapped.map_err(fail)?) {
                        budget.stays(file.clone(), file.bytes().len());
                        parts.push(mapped);
                        continue;
                    }
                    budget.exceed(packed);
                }
            }
            parts.push(parameter.pack_shard(self.backend, index).map_err(fail)?);
            self.checkpoint.release(stored);
            let kept = self.backend.stored_as(dtype, cols);
            if kept != dtype {
                *self.converted.entry((dtype, kept)).or_default() += 1;
            }
        }
        if parts.is_empty() {
            parts.push(parameter.pack_shard(self.backend, 0)?);
        }
        Ok(self.backend.concat(parts)?)
    }

    /// The vector that the tensors `names` make up, on the device in f32, `[1, len]`; empty if one is missing.
    pub(crate) fn vector(&mut self, names: &[String], sharding: Sharding) -> Result<Arc<B::Tensor>> {
        self.vectors(names, sharding, 1).map(Arc::new)
    }

    /// The same as a matrix of `rows` vectors, one after the other.
    pub(crate) fn vectors(&mut self, names: &[String], sharding: Sharding, rows: usize) -> Result<B::Tensor> {
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
        Ok(self.backend.upload(&values, rows, values.len() / rows)?)
    }

    /// Takes a tensor of one value; 1 until [`finish`](Self::finish) refuses the checkpoint that lacks it.
    pub(crate) fn scalar(&mut self, name: &str) -> Result<f32> {
        let Some(tensor) = self.take(name)? else { return Ok(1.0) };
        match tensor.to_f32()?[..] {
            [value] => Ok(value),
            _ => Err(LoadError::parameter(
                tensor.name,
                ParameterError::Shape { expected: vec![1], got: tensor.shape.clone() },
            )),
        }
    }

    /// Takes the matrix `[rows, cols]` called `name` as its file has it: it is read there, row by row, and not packed.
    /// `None` until [`finish`](Self::finish) refuses the checkpoint that lacks it.
    pub(crate) fn mapped(&mut self, name: &str, rows: usize, cols: usize) -> Result<Option<MappedMatrix>> {
        let Some(tensor) = self.take(name)? else { return Ok(None) };
        tensor.check_readable()?;
        let fail = |error| LoadError::parameter(tensor.name, error);
        if tensor.shape != [rows, cols] {
            return Err(fail(ParameterError::Shape { expected: vec![rows, cols], got: tensor.shape.clone() }));
        }
        let bytes =
            || ParameterError::Bytes { shape: tensor.shape.clone(), dtype: tensor.dtype, bytes: tensor.data.len() };
        let row = tensor.dtype.bytes_for(cols).filter(|row| row.checked_mul(rows) == Some(tensor.data.len()));
        let row_bytes = row.ok_or_else(|| fail(bytes()))?;
        let part = self.checkpoint.part(name).ok_or_else(|| fail(bytes()))?;
        Ok(Some(MappedMatrix { part, dtype: tensor.dtype, cols, row_bytes }))
    }

    /// Counts the tensors of a module that the model has no use for as taken, if there are any.
    pub(crate) fn skip(&mut self, module: &str) {
        let before = self.left.len();
        self.left.retain(|name| name.strip_prefix(module).is_none_or(|rest| !rest.starts_with('.')));
        self.skipped += before - self.left.len();
    }

    /// A line for every type that the device has no kernels for and stores as another, and for what was skipped.
    pub(crate) fn notes(&self) -> Vec<String> {
        let note = |(&(from, to), &n): (&(DType, DType), &usize)| {
            let plural = if n == 1 { "" } else { "s" };
            format!("{n} tensor{plural} of type {from} stored as {to}, for which there are kernels")
        };
        let skipped = format!("{} tensors that the model has no use for are not loaded", self.skipped);
        let experts = self.expert_budget.iter().flat_map(ExpertBudget::notes);
        self.converted.iter().map(note).chain((self.skipped > 0).then_some(skipped)).chain(experts).collect()
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
