//! A Hugging Face directory: config.json and one or more safetensors files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use nanovllm_backend::DType;
use nanovllm_gguf::FilePart;
use safetensors::Dtype;

use crate::checkpoint::names::TensorNames;
use crate::checkpoint::safetensors_files::{SafeTensorInfo, SafeTensorsFiles};
use crate::error::{LoadError, Result};
use crate::model_config::ModelConfig;
use crate::stored_tensor::StoredTensor;

/// A Hugging Face directory.
pub struct SafeTensorsCheckpoint {
    path: PathBuf,
    config: ModelConfig,
    files: SafeTensorsFiles,
    names: TensorNames,
}

impl SafeTensorsCheckpoint {
    /// Opens the safetensors files of `dir`: those its index names, or all of them, as nano-vLLM does.
    ///
    /// # Errors
    /// What is missing from the directory or wrong with its files.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = read_config(&dir.join("config.json"))?;
        let files = SafeTensorsFiles::open(dir)?;
        let stored = files.tensors().iter().map(|info| (info.name.as_str(), stacked(info, files.data(info).len())));
        let family = config.family.config();
        let (fused, experts) = (family.fused_modules(), family.stacked_experts());
        let names = TensorNames::new(stored, config.has_other_parts, fused, experts);
        for info in names.names().iter().filter_map(|name| files.info(&names.place(name)?.stored)) {
            if dtype(info.dtype).is_none() {
                let (name, dtype) = (info.name.clone(), info.dtype.to_string());
                return Err(LoadError::UnsupportedDType { name, dtype });
            }
        }
        let mut checkpoint = Self { path: dir.to_owned(), config, files, names };
        checkpoint.config.base.tie_word_embeddings = checkpoint.is_tied()?;
        Ok(checkpoint)
    }

    /// Whether the output projection is the embedding. As in transformers one that is stored counts where it differs,
    /// whatever config.json says: some tools train it and leave the setting. Of a model with other parts config.json speaks of
    /// ties in either of two objects, or not at all.
    fn is_tied(&self) -> Result<bool> {
        let says = self.config.base.tie_word_embeddings || self.config.has_other_parts;
        let head = self.tensor("lm_head.weight")?;
        let (Some(head), true) = (head, says) else { return Ok(says) };
        let embedding = self.tensor("model.embed_tokens.weight")?;
        Ok(self.config.base.tie_word_embeddings && embedding.is_some_and(|embedding| embedding.data == head.data))
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What a user should know of how the checkpoint was read, a line each.
    pub fn notes(&self) -> Vec<String> {
        let skipped = self.names.skipped;
        let note = format!("{skipped} tensors of the model's other parts, for images and sound, are not loaded");
        self.config.notes().into_iter().chain((skipped > 0).then_some(note)).collect()
    }

    /// The names of all tensors of the decoder, in the order of the files.
    pub fn names(&self) -> Vec<String> {
        self.names.names().to_vec()
    }

    /// The tensor with this name as it is stored. Its data must not be read: the file may have become shorter.
    pub fn stored(&self, name: &str) -> Option<StoredTensor<'_>> {
        let place = self.names.place(name)?;
        let info = self.files.info(&place.stored)?;
        let (mut data, mut shape) = (self.files.data(info), info.shape.clone());
        // Matrices that are stacked are one of all their rows.
        if place.parts > 1 && shape.len() == 3 {
            let matrices = shape.remove(0);
            shape[0] = shape[0].checked_mul(matrices)?;
        }
        // One that is not made of so many parts is left as it is, for the shape check to report.
        if let Some(rows) = shape.first_mut().filter(|rows| rows.is_multiple_of(place.parts)) {
            *rows /= place.parts;
            let bytes = data.len() / place.parts;
            data = &data[place.part * bytes..(place.part + 1) * bytes];
        }
        Some(StoredTensor { name: &info.name, dtype: dtype(info.dtype)?, shape, data: Cow::Borrowed(data) })
    }

    /// The tensor with this name as layers use it.
    ///
    /// # Errors
    /// [`LoadError::SafeTensors`] or [`LoadError::Io`] naming the file, where it is shorter than when it was opened.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<StoredTensor<'_>>> {
        if let Some(info) = self.info(name) {
            self.files.check(info)?;
        }
        let table = self.config.family.config().tensor_table();
        self.stored(name).map(|tensor| table.as_used(name, tensor)).transpose()
    }

    pub(super) fn part(&self, name: &str) -> Option<FilePart> {
        self.files.part(self.info(name)?)
    }

    /// Tells the system that the pages of the tensor with this name, or with this one in its file, are not needed for now.
    pub fn release(&self, name: &str) {
        if let Some(info) = self.info(name).or_else(|| self.files.info(name)) {
            self.files.release(info);
        }
    }

    fn info(&self, name: &str) -> Option<&SafeTensorInfo> {
        self.files.info(&self.names.place(name)?.stored)
    }
}

/// How many matrices a tensor stacks, where each has some bytes: a file must not name many tensors in little room.
fn stacked(info: &SafeTensorInfo, bytes: usize) -> usize {
    match info.shape[..] {
        [count, _, _] if count <= bytes / 64 => count,
        _ => 0,
    }
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    let json = serde_json::from_str(&text).map_err(|error| LoadError::Config(error.to_string()));
    json.and_then(ModelConfig::from_json).map_err(|error| error.in_file(path))
}

/// The element type under this project's name; `None` for those that weights cannot have.
fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        _ => return None,
    })
}
