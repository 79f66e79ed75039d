//! The files of a model, GGUF or safetensors, and the tensors in them.

use std::path::{Path, PathBuf};

use nanovllm_gguf::{GgmlType, GgufFile};
use nanovllm_model::{LoadError, ModelConfig, ModelPath, SafeTensorsCheckpoint, TensorLayout};
use serde::{Serialize, Serializer};

use crate::error::Error;

/// A GGUF file or a Hugging Face directory.
pub(crate) enum ModelFiles {
    /// A GGUF file, or all shards of a split one.
    Gguf(GgufFile),
    /// config.json beside safetensors files.
    SafeTensors { dir: PathBuf, checkpoint: Box<SafeTensorsCheckpoint> },
}

/// A tensor as the files list it; `info --tensors --json` prints these fields.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ListedTensor {
    pub(crate) name: String,
    #[serde(serialize_with = "type_name")]
    pub(crate) dtype: GgmlType,
    /// Outermost first.
    pub(crate) shape: Vec<usize>,
    /// Bytes in the file.
    pub(crate) bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn type_name<S: Serializer>(dtype: &GgmlType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.name())
}

impl ListedTensor {
    /// The bytes that it takes once it is loaded on the CPU device, which packs matrices and turns vectors into f32.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        if self.shape.len() < 2 {
            return self.elements() * 4;
        }
        nanovllm_cpu::packed_bytes(self.dtype, self.elements()).unwrap_or(self.bytes)
    }

    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

impl ModelFiles {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(match ModelPath::of(path)? {
            ModelPath::Directory => {
                Self::SafeTensors { dir: path.to_owned(), checkpoint: Box::new(SafeTensorsCheckpoint::open(path)?) }
            }
            ModelPath::Gguf => Self::Gguf(GgufFile::open(path)?),
        })
    }

    /// The hyperparameters, unless the model's architecture or one of its features is not supported.
    pub(crate) fn config(&self) -> Result<ModelConfig, LoadError> {
        match self {
            Self::Gguf(file) => ModelConfig::from_gguf(file),
            Self::SafeTensors { checkpoint, .. } => Ok(checkpoint.config().clone()),
        }
    }

    /// Every tensor, those of a GGUF file in its order and others by name.
    pub(crate) fn tensors(&self) -> Vec<ListedTensor> {
        match self {
            Self::Gguf(file) => {
                let tensor = |t: &nanovllm_gguf::TensorInfo| ListedTensor {
                    name: t.name.clone(),
                    dtype: t.dtype,
                    shape: t.dims.iter().rev().copied().collect(),
                    bytes: t.len as u64,
                };
                file.tensors().iter().map(tensor).collect()
            }
            Self::SafeTensors { checkpoint, .. } => {
                let tensors = checkpoint.names().into_iter().filter_map(|name| {
                    let TensorLayout { dtype, shape } = checkpoint.layout(&name)?;
                    let bytes = dtype.bytes_for(shape.iter().product())? as u64;
                    Some(ListedTensor { name, dtype, shape, bytes })
                });
                tensors.collect()
            }
        }
    }
}
