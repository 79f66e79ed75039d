//! A Hugging Face directory: config.json and one or more safetensors files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use nanovllm_backend::DType;
use safetensors::Dtype;

use crate::checkpoint::safetensors_files::SafeTensorsFiles;
use crate::error::{LoadError, Result};
use crate::model_config::ModelConfig;
use crate::stored_tensor::StoredTensor;

/// A Hugging Face directory.
pub struct SafeTensorsCheckpoint {
    path: PathBuf,
    config: ModelConfig,
    files: SafeTensorsFiles,
}

impl SafeTensorsCheckpoint {
    /// Opens the safetensors files of `dir`: those its index names, or all of them, as nano-vLLM does.
    ///
    /// # Errors
    /// What is missing from the directory or wrong with its files.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = read_config(&dir.join("config.json"))?;
        let files = SafeTensorsFiles::open(dir)?;
        for info in files.tensors() {
            if dtype(info.dtype).is_none() {
                let (name, dtype) = (info.name.clone(), info.dtype.to_string());
                return Err(LoadError::UnsupportedDType { name, dtype });
            }
        }
        Ok(Self { path: dir.to_owned(), config, files })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in the order of the files.
    pub fn names(&self) -> Vec<String> {
        self.files.tensors().iter().map(|info| info.name.clone()).collect()
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        let info = self.files.info(name)?;
        let data = Cow::Borrowed(self.files.data(info));
        Some(StoredTensor { name: &info.name, dtype: dtype(info.dtype)?, shape: info.shape.clone(), data })
    }

    /// Checks that the file of the tensor `name` is as long as when it was opened.
    ///
    /// # Errors
    /// [`LoadError::SafeTensors`] or [`LoadError::Io`] naming the file.
    pub fn check(&self, name: &str) -> Result<()> {
        self.files.info(name).map_or(Ok(()), |info| self.files.check(info))
    }

    /// Tells the system that the pages of the tensor `name` are not needed for now.
    pub fn release(&self, name: &str) {
        if let Some(info) = self.files.info(name) {
            self.files.release(info);
        }
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
