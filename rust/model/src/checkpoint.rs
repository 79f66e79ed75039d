//! A model's files, safetensors or GGUF, as one thing: a configuration, and tensors under Hugging Face names.

mod export;
mod gguf;
mod names;
mod path;
mod place;
mod safetensors;
mod safetensors_files;

use std::path::Path;

use nanovllm_gguf::{FilePart, GgufFile};

pub use self::export::ExportedTensor;
pub use self::gguf::GgufCheckpoint;
pub(crate) use self::names::{FusedModule, StackedExperts};
pub use self::path::ModelPath;
pub use self::safetensors::{SafeTensorsCheckpoint, TensorLayout};
pub use self::safetensors_files::{SafeTensorInfo, SafeTensorsFiles};
use crate::error::Result;
use crate::model_config::ModelConfig;
use crate::stored_tensor::{StoredTensor, TensorSource};

/// A model's files, opened and checked; tensors are read on first use.
pub enum Checkpoint {
    /// A Hugging Face directory with safetensors files.
    SafeTensors(SafeTensorsCheckpoint),
    /// A GGUF file, or several of a split model.
    Gguf(GgufCheckpoint),
}

impl Checkpoint {
    /// Opens a Hugging Face directory or a GGUF file.
    ///
    /// # Errors
    /// Those of [`ModelPath::of`] when the path is neither; otherwise what is wrong with the files.
    pub fn open(path: &Path) -> Result<Self> {
        match ModelPath::of(path)? {
            ModelPath::Directory => SafeTensorsCheckpoint::open(path).map(Self::SafeTensors),
            ModelPath::Gguf => GgufCheckpoint::open(path).map(Self::Gguf),
        }
    }

    /// The path that was opened.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::SafeTensors(c) => c.path(),
            Self::Gguf(c) => c.path(),
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::SafeTensors(c) => c.config(),
            Self::Gguf(c) => c.config(),
        }
    }

    /// Bytes of all tensors in the files.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::SafeTensors(c) => c.bytes(),
            Self::Gguf(c) => c.file().tensors().iter().map(|tensor| tensor.len as u64).sum(),
        }
    }

    /// What a user should know of how the checkpoint was read, a line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        match self {
            Self::SafeTensors(c) => c.notes(),
            Self::Gguf(c) => c.config().notes(),
        }
    }

    /// The GGUF file, if it is one: it holds a tokenizer too.
    pub fn gguf(&self) -> Option<&GgufFile> {
        match self {
            Self::SafeTensors(_) => None,
            Self::Gguf(c) => Some(c.file()),
        }
    }
}

impl TensorSource for Checkpoint {
    fn names(&self) -> Vec<String> {
        match self {
            Self::SafeTensors(c) => c.names(),
            Self::Gguf(c) => c.names(),
        }
    }

    fn tensor(&self, name: &str) -> Result<Option<StoredTensor<'_>>> {
        match self {
            Self::SafeTensors(c) => c.tensor(name),
            Self::Gguf(c) => c.tensor(name),
        }
    }

    fn part(&self, name: &str) -> Option<FilePart> {
        match self {
            Self::SafeTensors(c) => c.part(name),
            Self::Gguf(c) => c.part(name),
        }
    }

    fn release(&self, name: &str) {
        match self {
            Self::SafeTensors(c) => c.release(name),
            Self::Gguf(c) => c.release(name),
        }
    }
}
