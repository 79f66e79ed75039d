//! What waiting for requests gives Python: the sequences that have finished, or the exception that ended the wait.

use nanovllm_engine::{EngineError, FinishedOutput};
use nanovllm_model::StepError;
use nanovllm_service::{Event, ServiceError};
use pyo3::prelude::*;

use crate::errors::service_error;
use crate::signals::Signals;

/// A finished sequence.
#[pyclass(frozen, get_all, module = "nanovllm._core")]
pub(crate) struct FinishedSequence {
    pub(crate) seq_id: u64,
    token_ids: Vec<u32>,
    finish_reason: &'static str,
    num_prompt_tokens: usize,
    num_cached_tokens: usize,
}

impl From<FinishedOutput> for FinishedSequence {
    fn from(output: FinishedOutput) -> Self {
        Self {
            seq_id: output.seq_id,
            token_ids: output.token_ids,
            finish_reason: output.finish_reason.as_str(),
            num_prompt_tokens: output.num_prompt_tokens,
            num_cached_tokens: output.num_cached_tokens,
        }
    }
}

/// The sequences that have finished, and the error of the first that failed.
pub(crate) fn finished(events: Vec<Event>) -> PyResult<Vec<FinishedSequence>> {
    let mut finished = Vec::new();
    for event in events {
        match event {
            Event::Finished { output, .. } => finished.push(output.into()),
            Event::Failed { error, .. } => return Err(service_error(&error)),
            Event::Tokens { .. } => {}
        }
    }
    Ok(finished)
}

/// The exception that a step ended with: what a signal handler raised, where that interrupted it.
pub(crate) fn step_error(error: &ServiceError, signals: &mut Signals) -> PyErr {
    let interrupted = matches!(
        error,
        ServiceError::Engine(error) if matches!(**error, EngineError::Step(StepError::Interrupted))
    );
    let raised = if interrupted { signals.take() } else { None };
    raised.unwrap_or_else(|| service_error(error))
}
