//! The service's errors.

use std::sync::Arc;

use nanovllm_engine::EngineError;

use crate::exclusive::Refusal;

/// Why a caller does not get what it asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServiceError {
    /// The engine refused a request, or a step failed. A failed step was rolled back: the same requests are queued.
    #[error(transparent)]
    Engine(Arc<EngineError>),
    /// The engine's turn cannot be had.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The service was closed, and the engine with it.
    #[error("the engine was closed by exit()")]
    Closed,
    /// A step ended in a panic; nothing is known of the engine's state any more.
    #[error("the engine is unusable, make another: a bug in this library ended a step in a panic: {0}")]
    Panicked(Arc<str>),
    /// Another caller has dropped a request of this one.
    #[error("a sequence of this call was aborted by another caller")]
    Aborted,
}

impl From<EngineError> for ServiceError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Arc::new(error))
    }
}
