//! A GGUF file as a checkpoint.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use nanovllm_gguf::{FilePart, GgufFile};

use crate::config::gguf::ROPE_TENSORS;
use crate::error::Result;
use crate::model_config::ModelConfig;
use crate::models::tensor_table::TensorTable;
use crate::stored_tensor::StoredTensor;

/// A GGUF file as a checkpoint.
pub struct GgufCheckpoint {
    path: PathBuf,
    file: GgufFile,
    config: ModelConfig,
}

impl GgufCheckpoint {
    /// Opens the file at `path`; any shard of a split model leads to the others.
    ///
    /// # Errors
    /// What is wrong with it, or with the configuration it holds.
    pub fn open(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let config = ModelConfig::from_gguf(&file).map_err(|error| error.in_file(path))?;
        Ok(Self { path: path.to_owned(), file, config })
    }

    /// The file, with all of its metadata.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn names(&self) -> Vec<String> {
        // The configuration has the rotary factors already.
        let weights = self.file.tensors().iter().filter(|t| !ROPE_TENSORS.contains(&t.name.as_str()));
        let table = self.table();
        let experts = self.config.family.config().stacked_experts().map(|experts| experts.count);
        let names = |name: &str, dims: &[usize]| {
            // One that does not stack as many matrices as there are experts lacks some, and is not cut into others.
            let stacks_all = dims.len() > dims_of_one(name) && dims.last() == experts.as_ref();
            let count = experts.filter(|_| stacks_all).unwrap_or(1);
            table.to_hugging_face(name, count).unwrap_or_else(|| vec![name.to_owned()])
        };
        weights.flat_map(|t| names(&t.name, &t.dims)).collect()
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Option<StoredTensor<'_>>> {
        let Some(stored) = self.table().to_gguf(name) else { return Ok(None) };
        let Some(view) = self.file.tensor(&stored) else { return Ok(None) };
        self.file.check(&stored)?;
        let mut shape: Vec<usize> = view.dims.iter().rev().copied().collect();
        let mut data = view.data;
        if let Some(expert) = self.table().expert(name) {
            let experts = if shape.len() > dims_of_one(name) { shape.remove(0) } else { 1 };
            if expert >= experts {
                return Ok(None);
            }
            let bytes = data.len() / experts;
            data = &data[expert * bytes..(expert + 1) * bytes];
        }
        // A vector may be stored with trailing dimensions of one.
        while shape.len() > 1 && shape[0] == 1 {
            shape.remove(0);
        }
        let tensor = StoredTensor { name: view.name, dtype: view.dtype, shape, data: Cow::Borrowed(data) };
        Ok(Some(self.table().row_order(name).to_hugging_face(tensor, &self.config.base)))
    }

    pub(super) fn part(&self, name: &str) -> Option<FilePart> {
        self.file.part(&self.table().to_gguf(name)?)
    }

    pub(super) fn release(&self, name: &str) {
        if let Some(view) = self.file.tensor(name) {
            self.file.release(&view);
        }
    }

    fn table(&self) -> TensorTable {
        self.config.family.config().tensor_table()
    }
}

/// How many dimensions the tensor of this name has where it is not stacked.
fn dims_of_one(name: &str) -> usize {
    if name.rsplit_once('.').is_some_and(|(_, kind)| kind == "bias") { 1 } else { 2 }
}
