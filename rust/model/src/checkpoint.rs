//! Stored weights under Hugging Face names, from safetensors or GGUF.

mod export;
mod gguf;
mod layout;
mod safetensors;
mod safetensors_files;

use std::borrow::Cow;
use std::path::Path;

use nanovllm_backend::DType;
use nanovllm_gguf::GgufFile;

pub use self::export::ExportedTensor;
pub use self::gguf::GgufCheckpoint;
pub(crate) use self::layout::{TensorRule, TensorTable};
pub use self::safetensors::SafeTensorsCheckpoint;
pub use self::safetensors_files::{SafeTensorInfo, SafeTensorsFiles};
use crate::config::ModelConfig;
use crate::error::{LoadError, Result};

/// A stored tensor, borrowed from the mapped file where it can be.
#[derive(Debug, Clone)]
pub struct StoredTensor<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Elements as stored, row-major.
    pub data: Cow<'a, [u8]>,
}

impl StoredTensor<'_> {
    /// Refuses an element type that cannot be widened to f32.
    pub(crate) fn check_readable(&self) -> Result<()> {
        if nanovllm_gguf::is_supported(self.dtype) {
            Ok(())
        } else {
            Err(LoadError::unsupported_dtype(self.name, self.dtype))
        }
    }

    /// All elements as f32.
    ///
    /// # Errors
    /// [`LoadError::UnsupportedDType`]; [`LoadError::Gguf`] when memory is short.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.check_readable()?;
        let mut out = vec![0.0; self.shape.iter().product()];
        nanovllm_gguf::dequantize(self.dtype, &self.data, &mut out)?;
        Ok(out)
    }
}

/// A model's files.
pub enum Checkpoint {
    /// A Hugging Face directory.
    SafeTensors(SafeTensorsCheckpoint),
    /// A GGUF file.
    Gguf(GgufCheckpoint),
}

impl Checkpoint {
    /// Opens a Hugging Face directory or a GGUF file.
    ///
    /// # Errors
    /// [`LoadError::NotAModel`] when the path is neither; otherwise what is wrong with the files.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            SafeTensorsCheckpoint::open(path).map(Self::SafeTensors)
        } else if path.exists() {
            GgufCheckpoint::open(path).map(Self::Gguf)
        } else {
            let reason = "no such file or directory".to_owned();
            Err(LoadError::NotAModel { path: path.to_owned(), reason })
        }
    }

    /// The model's hyperparameters.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::SafeTensors(c) => c.config(),
            Self::Gguf(c) => c.config(),
        }
    }

    /// The GGUF file, if it is one.
    pub fn gguf(&self) -> Option<&GgufFile> {
        match self {
            Self::SafeTensors(_) => None,
            Self::Gguf(c) => Some(c.file()),
        }
    }

    /// Hugging Face names of all tensors; a tensor without one has its own.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::SafeTensors(c) => c.names(),
            Self::Gguf(c) => c.names(),
        }
    }

    /// The tensor with this Hugging Face name.
    pub(crate) fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        match self {
            Self::SafeTensors(c) => c.tensor(name),
            Self::Gguf(c) => c.tensor(name),
        }
    }

    /// Checks that the file of the tensor with this Hugging Face name is as long as when it was opened. To be called before
    /// [`tensor`](Self::tensor), which may read the data.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        match self {
            Self::SafeTensors(c) => c.check(name),
            Self::Gguf(c) => c.check(name),
        }
    }

    /// Tells the system that the pages of the tensor stored as `name` are not needed for now.
    pub(crate) fn release(&self, name: &str) {
        match self {
            Self::SafeTensors(c) => c.release(name),
            Self::Gguf(c) => c.release(name),
        }
    }
}
