//! A model's files, safetensors or GGUF, as one thing: a configuration, and tensors under Hugging Face names.

mod export;
mod gguf;
mod names;
mod path;
mod place;
mod safetensors;
mod safetensors_files;

use std::path::Path;

use nanovllm_backend::DType;
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

    /// The sum of `bytes` of the type and the number of elements of each tensor: of those of experts, and of all others.
    pub(crate) fn sizes(&self, bytes: impl Fn(DType, u64) -> u64) -> (u64, u64) {
        let (mut experts, mut others) = (0u64, 0u64);
        let mut add = |is_experts: bool, dtype, shape: &[usize]| {
            let elements = shape.iter().map(|&size| size as u64).fold(1, u64::saturating_mul);
            let sum = if is_experts { &mut experts } else { &mut others };
            *sum = sum.saturating_add(bytes(dtype, elements));
        };
        match self {
            Self::SafeTensors(c) => {
                let table = c.config().family.config().tensor_table();
                for name in c.names() {
                    if let Some(TensorLayout { dtype, shape }) = c.layout(&name) {
                        add(table.expert(&name).is_some() && shape.len() > 1, dtype, &shape);
                    }
                }
            }
            // What is stacked is of experts.
            Self::Gguf(c) => c.file().tensors().iter().for_each(|t| add(t.dims.len() > 2, t.dtype, &t.dims)),
        }
        (experts, others)
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
