//! What can be wrong with a model's files and parameters.

use std::path::{Path, PathBuf};

use nanovllm_backend::DType;

use crate::sharding::ShardError;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What is wrong with the configuration in a file, or with that of a directory's model beside its tensors.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong; no error of this variant.
        error: Box<LoadError>,
    },
    /// The path is neither a model directory nor a GGUF file.
    #[error("{}: {reason}", path.display())]
    NotAModel {
        /// The path that was given.
        path: PathBuf,
        /// What was looked for there.
        reason: String,
    },
    /// config.json or the GGUF metadata lacks something or contradicts itself.
    #[error("model configuration: {0}")]
    Config(String),
    /// A model this version has no code for.
    #[error("unsupported architecture {name:?}; supported: {supported}")]
    UnsupportedArchitecture {
        /// The class, type or architecture that the file names.
        name: String,
        /// The names of all families there is code for.
        supported: String,
    },
    /// A feature of a supported model that this version has no code for.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// A safetensors file is malformed.
    #[error("{}: malformed safetensors file: {reason}", path.display())]
    SafeTensors {
        /// The file, or the index of several.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A GGUF file is malformed.
    #[error(transparent)]
    Gguf(#[from] nanovllm_gguf::Error),
    /// The model needs tensors that the files do not have.
    #[error("tensors missing from the checkpoint: {}", names.join(", "))]
    MissingTensors {
        /// Their Hugging Face names.
        names: Vec<String>,
    },
    /// The files have tensors that the model has no parameter for.
    #[error("tensors in the checkpoint that the model does not have: {}", names.join(", "))]
    UnknownTensors {
        /// Their Hugging Face names, or the names in the file of those that have none.
        names: Vec<String>,
    },
    /// Two files of a directory have a tensor of the same name.
    #[error("tensor {name:?} is in the checkpoint twice")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("tensor {name:?} has shape {got:?}, the configuration asks for {expected:?}")]
    Shape {
        /// The tensor's name in the file.
        name: String,
        /// The shape asked for, outermost dimension first.
        expected: Vec<usize>,
        /// The shape stored, outermost dimension first.
        got: Vec<usize>,
    },
    /// The device refuses a tensor.
    #[error("tensor {name:?}: {error}")]
    Tensor {
        /// The tensor's name in the file.
        name: String,
        /// What the device says.
        error: nanovllm_backend::Error,
    },
    /// Nothing can read a tensor's element type, or the device has no kernel for it.
    #[error(
        "tensor {name:?} has the unsupported type {dtype}; supported: {} and every quantised GGUF type",
        dense_types()
    )]
    UnsupportedDType {
        /// The tensor's name in the file.
        name: String,
        /// The name of the element type.
        dtype: String,
    },
    /// A stored tensor does not fit its parameter.
    #[error("tensor {name:?}: {error}")]
    Parameter {
        /// The tensor's name in the file.
        name: String,
        /// What does not fit.
        error: ParameterError,
    },
    /// The sizes in the configuration make a parameter that cannot be cut or counted.
    #[error("model configuration: {0}")]
    Shard(#[from] ShardError),
    /// The device failed, or cannot hold the model.
    #[error(transparent)]
    Backend(#[from] nanovllm_backend::Error),
}

impl LoadError {
    /// What is wrong, whether or not the error also names the file.
    pub fn kind(&self) -> &Self {
        match self {
            Self::InFile { error, .. } => error,
            error => error,
        }
    }

    /// The error with the file that it is about, where it is about the configuration and names none.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        let names_none = match &self {
            Self::Config(_) | Self::UnsupportedArchitecture { .. } | Self::Unsupported(_) | Self::Shard(_) => true,
            Self::Gguf(error) => !matches!(error, nanovllm_gguf::Error::InFile { .. }),
            _ => false,
        };
        if names_none { Self::InFile { path: path.to_owned(), error: Box::new(self) } } else { self }
    }

    /// What a parameter said of the stored tensor `name`, as an error that names it.
    pub(crate) fn parameter(name: &str, error: ParameterError) -> Self {
        let name = name.to_owned();
        match error {
            ParameterError::Shape { expected, got } => Self::Shape { name, expected, got },
            error => Self::Parameter { name, error },
        }
    }

    /// What the device said of the stored tensor `name`, as an error that names it.
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

/// The names of the dense types that weights may have.
fn dense_types() -> String {
    let dense = DType::ALL.iter().filter(|dtype| dtype.block_size() == 1 && !dtype.is_integer());
    dense.map(|dtype| dtype.name()).collect::<Vec<_>>().join(", ")
}

/// Why a parameter cannot take a tensor or be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// There is no stored tensor of this number, or it cannot be cut over the ranks.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The tensor has another shape than the parameter's sharding says.
    #[error("expected a tensor of shape {expected:?}, got {got:?}")]
    Shape {
        /// The shape asked for, outermost dimension first.
        expected: Vec<usize>,
        /// The shape given, outermost dimension first.
        got: Vec<usize>,
    },
    /// Fewer or more bytes than the shape asks for.
    #[error("a tensor of shape {shape:?} and type {dtype} with {bytes} bytes")]
    Bytes {
        /// The tensor's shape, outermost dimension first.
        shape: Vec<usize>,
        /// The tensor's element type.
        dtype: DType,
        /// The bytes it came with.
        bytes: usize,
    },
    /// A rank's columns begin or end within a block of a quantised type.
    #[error("columns {start}..{end} cut through the blocks of {dtype}, which are of {} elements", dtype.block_size())]
    Block {
        /// The rank's first column.
        start: usize,
        /// One past the rank's last column.
        end: usize,
        /// The quantised type.
        dtype: DType,
    },
    /// A parameter was to be used before all of its tensors were loaded.
    #[error("the parameter is made of {count} tensors, and number {index} was not loaded")]
    NotLoaded {
        /// The number of the first tensor that is missing.
        index: usize,
        /// How many tensors the parameter is made of.
        count: usize,
    },
    /// The element type cannot be widened to f32.
    #[error(transparent)]
    Gguf(#[from] nanovllm_gguf::Error),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] nanovllm_backend::Error),
}

/// What loading gives.
pub(crate) type Result<T> = std::result::Result<T, LoadError>;
