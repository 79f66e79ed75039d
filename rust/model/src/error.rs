//! What can be wrong with a model's files.

use std::path::PathBuf;

use nanovllm_backend::DType;

use crate::sharding::ShardError;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The path is neither a model directory nor a GGUF file.
    #[error("{}: {reason}", path.display())]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// config.json or the GGUF metadata lacks something or contradicts itself.
    #[error("model configuration: {0}")]
    Config(String),
    /// A model this version has no code for.
    #[error("unsupported architecture {name:?}; supported: {supported}")]
    UnsupportedArchitecture {
        /// What the file says.
        name: String,
        /// What would do.
        supported: String,
    },
    /// A feature of a supported model that this version has no code for.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// A safetensors file is malformed.
    #[error("{}: malformed safetensors file: {reason}", path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A GGUF file is malformed.
    #[error(transparent)]
    Gguf(#[from] nanovllm_gguf::Error),
    /// The model needs tensors that the files do not have.
    #[error("tensors missing from the checkpoint: {}", names.join(", "))]
    MissingTensors {
        /// Their names.
        names: Vec<String>,
    },
    /// The files have tensors the model does not know.
    #[error("tensors in the checkpoint that the model does not have: {}", names.join(", "))]
    UnknownTensors {
        /// Their names, as stored.
        names: Vec<String>,
    },
    /// Two files have the same tensor.
    #[error("tensor {name:?} is in the checkpoint twice")]
    DuplicateTensor {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("tensor {name:?} has shape {got:?}, the configuration asks for {expected:?}")]
    Shape {
        /// Its name, as stored.
        name: String,
        /// Outermost first.
        expected: Vec<usize>,
        /// Outermost first.
        got: Vec<usize>,
    },
    /// A tensor's element type has no kernel.
    #[error("tensor {name:?}: {error}")]
    Tensor {
        /// Its name, as stored.
        name: String,
        /// The device's words.
        error: nanovllm_backend::Error,
    },
    /// A tensor's element type cannot be read.
    #[error(
        "tensor {name:?} has the unsupported type {dtype}; supported: F32, F16, BF16, F64 and every quantised GGUF type"
    )]
    UnsupportedDType {
        /// Its name, as stored.
        name: String,
        /// The type's name.
        dtype: String,
    },
    /// A stored tensor does not fit its parameter.
    #[error("tensor {name:?}: {error}")]
    Parameter {
        /// Its name, as stored.
        name: String,
        /// What does not fit.
        error: ParameterError,
    },
    /// The configuration asks for a parameter that cannot be.
    #[error("model configuration: {0}")]
    Shard(#[from] ShardError),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] nanovllm_backend::Error),
}

impl LoadError {
    /// An error about the stored tensor `name`, from its parameter's.
    pub(crate) fn parameter(name: &str, error: ParameterError) -> Self {
        let name = name.to_owned();
        match error {
            ParameterError::Shape { expected, got } => Self::Shape { name, expected, got },
            error => Self::Parameter { name, error },
        }
    }

    /// An error about the stored tensor `name` of element type `dtype`, from the device's.
    pub(crate) fn tensor(name: &str, error: nanovllm_backend::Error) -> Self {
        match error {
            nanovllm_backend::Error::UnsupportedDType { dtype, .. } => Self::unsupported_dtype(name, dtype),
            error => Self::Tensor { name: name.to_owned(), error },
        }
    }

    pub(crate) fn unsupported_dtype(name: &str, dtype: DType) -> Self {
        Self::UnsupportedDType { name: name.to_owned(), dtype: dtype.to_string() }
    }
}

/// Why a parameter cannot take a tensor or be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// No such shard, or no such cut.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A tensor of another shape.
    #[error("expected a tensor of shape {expected:?}, got {got:?}")]
    Shape {
        /// Outermost first.
        expected: Vec<usize>,
        /// Outermost first.
        got: Vec<usize>,
    },
    /// Fewer or more bytes than the shape asks for.
    #[error("a tensor of shape {shape:?} and type {dtype} with {bytes} bytes")]
    Bytes {
        /// Outermost first.
        shape: Vec<usize>,
        /// Element type.
        dtype: DType,
        /// Bytes found.
        bytes: usize,
    },
    /// A cut through a block of a quantised type.
    #[error("columns {start}..{end} cut through the blocks of {dtype}, which are of {} elements", dtype.block_size())]
    Block {
        /// First column.
        start: usize,
        /// One past the last column.
        end: usize,
        /// Element type.
        dtype: DType,
    },
    /// Not all tensors were loaded.
    #[error("the parameter is made of {count} tensors, and number {index} was not loaded")]
    NotLoaded {
        /// The first one missing.
        index: usize,
        /// The tensors it is made of.
        count: usize,
    },
    /// Values cannot be widened to f32.
    #[error(transparent)]
    Gguf(#[from] nanovllm_gguf::Error),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] nanovllm_backend::Error),
}

/// Shorthand.
pub(crate) type Result<T> = std::result::Result<T, LoadError>;
