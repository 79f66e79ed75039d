//! Rust errors to Python exceptions. The package's own are defined in Python (`nanovllm.exceptions`), where they can
//! inherit from the built-in exception a caller expects, be pickled and be read.

use std::io::ErrorKind;
use std::path::Path;

use nanovllm_engine::EngineError;
use nanovllm_model::{LoadError, StepError};
use nanovllm_service::ServiceError;
use pyo3::exceptions::{PyInterruptedError, PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

mod exceptions {
    #![allow(unreachable_pub)] // pyo3's macro makes them pub
    pyo3::import_exception!(nanovllm.exceptions, ChatTemplateError);
    pyo3::import_exception!(nanovllm.exceptions, ModelFormatError);
    pyo3::import_exception!(nanovllm.exceptions, ModelNotFoundError);
    pyo3::import_exception!(nanovllm.exceptions, PreconditionError);
    pyo3::import_exception!(nanovllm.exceptions, UnsupportedModelError);
}
pub(crate) use exceptions::UnsupportedModelError;
use exceptions::{ChatTemplateError, ModelFormatError, ModelNotFoundError, PreconditionError};

/// The exception for a call that is wrong now, where nano-vLLM asserts or breaks.
pub(crate) fn precondition(text: &'static str) -> PyErr {
    PreconditionError::new_err(text)
}

/// The exception for a call of an engine that comes too late.
pub(crate) fn closed() -> PyErr {
    PyRuntimeError::new_err(ServiceError::Closed.to_string())
}

/// The same exception with the name of the item it is about in front. Other types than TypeError and ValueError, which a
/// value's own methods may raise, are left as they are.
pub(crate) fn of_item(py: Python<'_>, error: PyErr, item: &str) -> PyErr {
    let kind = error.get_type(py);
    if kind.is(py.get_type::<PyTypeError>()) || kind.is(py.get_type::<PyValueError>()) {
        PyErr::from_type(kind, format!("{item}: {}", error.value(py)))
    } else {
        error
    }
}

/// The exception for an error of the engine.
#[allow(clippy::needless_pass_by_value)] // what `map_err` calls
pub(crate) fn engine_error(error: EngineError) -> PyErr {
    engine_error_ref(&error)
}

fn engine_error_ref(error: &EngineError) -> PyErr {
    let text = error.to_string();
    match error {
        EngineError::Backend(error) | EngineError::Step(StepError::Backend(error)) => backend_error(error),
        EngineError::NoRoomForKvCache { .. }
        | EngineError::KvCacheBeyondMemory { .. }
        | EngineError::BlockTablesTooLarge { .. } => PyMemoryError::new_err(text),
        EngineError::Precondition { .. }
        | EngineError::BlockSizeMismatch { .. }
        | EngineError::DuplicateSeqId(_)
        | EngineError::UnknownSeqId(_)
        | EngineError::TokenCount { .. } => PreconditionError::new_err(text),
        EngineError::Step(StepError::Interrupted) => PyInterruptedError::new_err(text),
        EngineError::Config { .. }
        | EngineError::SequenceState { .. }
        | EngineError::SamplingParams(_)
        | EngineError::EmptyPrompt
        | EngineError::TokenOutOfRange { .. }
        | EngineError::PromptTooLong { .. }
        | EngineError::PromptExceeds { .. }
        | EngineError::PromptNeverFits { .. } => PyValueError::new_err(text),
        EngineError::MemoryUnknown | EngineError::BadToken { .. } => PyRuntimeError::new_err(text),
    }
}

/// The exception for what a caller of the service does not get.
pub(crate) fn service_error(error: &ServiceError) -> PyErr {
    match error {
        ServiceError::Engine(error) => engine_error_ref(error),
        ServiceError::Refused(_) | ServiceError::Closed | ServiceError::Panicked(_) | ServiceError::Aborted => {
            PyRuntimeError::new_err(error.to_string())
        }
    }
}

/// The exception for a device that cannot be had as asked.
pub(crate) fn device_error(error: &nanovllm_devices::Error) -> PyErr {
    use nanovllm_devices::Error;
    match error {
        Error::Backend(error) => backend_error(error),
        Error::UnknownDevice { .. } | Error::Option { .. } => PyValueError::new_err(error.to_string()),
    }
}

/// The exception for an error in a model's files.
pub(crate) fn load_error(error: &LoadError) -> PyErr {
    load_error_with(error, error.to_string())
}

/// The exception for an error in the files of the model at `path`, which it names.
pub(crate) fn load_error_at(path: &Path, error: &LoadError) -> PyErr {
    let text = match error.kind() {
        LoadError::Backend(_) => error.to_string(),
        LoadError::Config(_) if path.is_dir() => at(&path.join("config.json"), error.to_string()),
        _ => at(path, error.to_string()),
    };
    load_error_with(error, text)
}

/// A text with a path in front, unless it has that path already.
fn at(path: &Path, text: String) -> String {
    let path = path.display().to_string();
    if text.contains(&path) { text } else { format!("{path}: {text}") }
}

fn load_error_with(error: &LoadError, text: String) -> PyErr {
    match error.kind() {
        LoadError::Io { source, .. } => io_error(source, text),
        LoadError::Gguf(error) => gguf_error(error, text),
        LoadError::UnsupportedArchitecture { .. } | LoadError::Unsupported(_) | LoadError::UnsupportedDType { .. } => {
            UnsupportedModelError::new_err(text)
        }
        LoadError::Backend(error) => backend_error(error),
        LoadError::Tensor { error: nanovllm_backend::Error::OutOfMemory { .. }, .. } => PyMemoryError::new_err(text),
        LoadError::InFile { .. } // `kind` gives none
        | LoadError::NotAModel { .. }
        | LoadError::Config(_)
        | LoadError::SafeTensors { .. }
        | LoadError::MissingTensors { .. }
        | LoadError::UnknownTensors { .. }
        | LoadError::DuplicateTensor { .. }
        | LoadError::Shape { .. }
        | LoadError::Tensor { .. }
        | LoadError::Parameter { .. }
        | LoadError::Shard(_) => ModelFormatError::new_err(text),
    }
}

/// The exception for an error of the tokenizer.
pub(crate) fn tokenizer_error(error: &nanovllm_tokenizer::Error) -> PyErr {
    tokenizer_error_with(error, error.to_string())
}

/// The exception for an error in the tokenizer's files of the model at `path`, which it names.
pub(crate) fn tokenizer_error_at(path: &Path, error: &nanovllm_tokenizer::Error) -> PyErr {
    tokenizer_error_with(error, at(path, error.to_string()))
}

fn tokenizer_error_with(error: &nanovllm_tokenizer::Error, text: String) -> PyErr {
    use nanovllm_tokenizer::Error;
    match error {
        Error::Read { source, .. } | Error::TemplateThread(source) => io_error(source, text),
        Error::Gguf(error) => gguf_error(error, text),
        Error::UnsupportedModel { .. } | Error::UnknownPreTokenizer { .. } => UnsupportedModelError::new_err(text),
        Error::NoChatTemplate
        | Error::UnknownChatTemplate { .. }
        | Error::TemplateRefused(_)
        | Error::TemplateLimit { .. }
        | Error::Template { .. } => ChatTemplateError::new_err(text),
        Error::TemplateInterrupted => PyInterruptedError::new_err(text),
        Error::Messages { .. }
        | Error::ReservedVariable { .. }
        | Error::TokenId { .. }
        | Error::Truncation { .. }
        | Error::State(_) => PyValueError::new_err(text),
        Error::Tokenizer(_) => PyRuntimeError::new_err(text),
        _ => ModelFormatError::new_err(text), // the many ways in which a file can be wrong
    }
}

/// The exception for an error of a device.
pub(crate) fn backend_error(error: &nanovllm_backend::Error) -> PyErr {
    use nanovllm_backend::Error;
    let text = error.to_string();
    match error {
        Error::OutOfMemory { .. } => PyMemoryError::new_err(text),
        Error::UnsupportedDType { .. } => UnsupportedModelError::new_err(text),
        Error::Option(_) => PyValueError::new_err(text),
        Error::Shape { .. } | Error::Device { .. } => PyRuntimeError::new_err(text),
    }
}

/// The exception, with this text, for an error of the GGUF format or of a mapped file.
pub(crate) fn gguf_error(error: &nanovllm_gguf::Error, text: String) -> PyErr {
    use nanovllm_gguf::Error;
    match error.kind() {
        Error::Io(source) | Error::Write(source) => io_error(source, text),
        Error::MissingShard { .. } => ModelNotFoundError::new_err(text),
        Error::UnsupportedType { .. } => UnsupportedModelError::new_err(text),
        Error::OutOfMemory { .. } => PyMemoryError::new_err(text),
        _ => ModelFormatError::new_err(text), // the many ways in which a file can be wrong
    }
}

fn io_error(error: &std::io::Error, text: String) -> PyErr {
    match error.kind() {
        ErrorKind::NotFound => ModelNotFoundError::new_err(text),
        ErrorKind::OutOfMemory => PyMemoryError::new_err(text),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => ModelFormatError::new_err(text),
        _ => PyOSError::new_err(text),
    }
}
