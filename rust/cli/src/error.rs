//! What can go wrong in a command.

use std::io;
use std::path::PathBuf;

use nanovllm_model::LoadError;

/// Why a command failed; its text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such model; the text is that of [`Host::resolve`](crate::Host::resolve).
    #[error("{0}")]
    Model(String),
    /// The model's files cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A GGUF file cannot be read or written.
    #[error(transparent)]
    Gguf(#[from] nanovllm_gguf::Error),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] nanovllm_tokenizer::Error),
    /// An option is outside its limits.
    #[error("{0}")]
    Option(String),
    /// A tensor cannot be converted.
    #[error("tensor {name:?}: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The user has interrupted the command.
    #[error("interrupted")]
    Interrupted,
    /// Nobody reads standard output any more.
    #[error("standard output is closed")]
    ClosedPipe,
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Output(error),
        }
    }
}
