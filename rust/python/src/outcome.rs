//! What waiting for requests gives Python: the sequences that have finished, or the exception that ended the wait.

use nanovllm_engine::{EngineError, FinishedOutput, TokenLogprobs};
use nanovllm_model::StepError;
use nanovllm_service::{Event, ServiceError, Timing};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::service_error;
use crate::signals::Signals;

/// A finished sequence.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct FinishedSequence {
    output: FinishedOutput,
    /// Its text, where it was made on the way.
    text: Option<String>,
    stop: Option<String>,
    timing: Timing,
}

impl FinishedSequence {
    pub(crate) fn seq_id_of(&self) -> u64 {
        self.output.seq_id
    }
}

/// How likely a token was, its rank, and the likeliest tokens with theirs.
type Logprobs<'a> = (f32, u32, &'a [(u32, f32)]);

fn listed(logprobs: &[TokenLogprobs]) -> Vec<Logprobs<'_>> {
    logprobs.iter().map(|of| (of.logprob, of.rank, &of.top[..])).collect()
}

#[pymethods]
impl FinishedSequence {
    #[getter]
    fn seq_id(&self) -> u64 {
        self.output.seq_id
    }

    /// Its tokens.
    #[getter]
    fn token_ids(&self) -> Vec<u32> {
        self.output.token_ids.clone()
    }

    /// Its text, where a stop string might have ended it; else None.
    #[getter]
    fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// `stop` or `length`.
    #[getter]
    fn finish_reason(&self) -> &'static str {
        self.output.finish_reason.as_str()
    }

    /// The token or the text that its request stopped at; None where it ended by itself.
    #[getter]
    fn stop_reason<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match (&self.stop, self.output.stop_token) {
            (Some(text), _) => Ok(Some(PyString::new(py, text).into_any())),
            (None, Some(token)) => Ok(Some(token.into_pyobject(py)?.into_any())),
            (None, None) => Ok(None),
        }
    }

    /// Of each token how likely it was, its rank, and the likeliest tokens with theirs; nothing unless it was asked for.
    #[getter]
    fn logprobs(&self) -> Vec<Logprobs<'_>> {
        listed(&self.output.logprobs)
    }

    /// The same of the tokens of the prompt from the second on.
    #[getter]
    fn prompt_logprobs(&self) -> Vec<Logprobs<'_>> {
        listed(&self.output.prompt_logprobs)
    }

    /// The prompt's embedding in float32, `[hidden_size]`, where that was asked for; else None.
    #[getter]
    fn embedding<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<f32>>> {
        self.output.embedding.as_deref().map(|embedding| PyArray1::from_slice(py, embedding))
    }

    #[getter]
    fn num_prompt_tokens(&self) -> usize {
        self.output.num_prompt_tokens
    }

    #[getter]
    fn num_cached_tokens(&self) -> usize {
        self.output.num_cached_tokens
    }

    /// Seconds from when it was queued to its first token, and to its end.
    #[getter]
    fn timing(&self) -> (f64, f64) {
        (self.timing.first_token.as_secs_f64(), self.timing.total.as_secs_f64())
    }
}

/// The sequences that have finished, and the error of the first that failed.
pub(crate) fn finished(events: Vec<Event>) -> PyResult<Vec<FinishedSequence>> {
    let mut finished = Vec::new();
    for event in events {
        match event {
            Event::Finished { output, text, stop, timing } => {
                finished.push(FinishedSequence { output, text, stop, timing });
            }
            Event::Failed { error, .. } => return Err(service_error(&error)),
            Event::Tokens { .. } => {}
        }
    }
    Ok(finished)
}

/// News of requests for Python: `(seq_id, token_ids, logprobs, text)` of new tokens, a [`FinishedSequence`] with the rest of the text,
/// or `(seq_id, exception)` of a request that failed.
pub(crate) fn news(py: Python<'_>, events: Vec<Event>) -> PyResult<Vec<Py<PyAny>>> {
    let told = |event| {
        Ok(match event {
            Event::Tokens { seq_id, token_ids, logprobs, text } => {
                (seq_id, token_ids, listed(&logprobs), text).into_pyobject(py)?.into_any().unbind()
            }
            Event::Finished { output, text, stop, timing } => {
                Py::new(py, FinishedSequence { output, text, stop, timing })?.into_any()
            }
            Event::Failed { seq_id, error } => (seq_id, service_error(&error)).into_pyobject(py)?.into_any().unbind(),
        })
    };
    events.into_iter().map(told).collect()
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
