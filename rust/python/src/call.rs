//! `Call`: one caller's requests, for as long as it waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nanovllm_service::Exclusive;
use pyo3::prelude::*;

use crate::door::Door;
use crate::guarded::Turns;
use crate::outcome::{FinishedSequence, finished, step_error};
use crate::signals::Signals;

/// How long a caller waits at most before it comes back to Python, for signals and the progress bar.
const INTERVAL: Duration = Duration::from_millis(100);

/// Requests that one caller waits for, as a context manager: what has not finished when it is left is dropped, all at once,
/// whatever ends it.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Call {
    inner: Exclusive<Option<nanovllm_service::Call>>,
    door: Arc<Door>,
}

impl Call {
    pub(crate) fn new(inner: nanovllm_service::Call, door: Arc<Door>) -> Self {
        Self { inner: Exclusive::new("the call", Some(inner)), door }
    }
}

#[pymethods]
impl Call {
    /// Requests that have not finished.
    #[getter]
    fn pending(&self, py: Python<'_>) -> PyResult<usize> {
        self.inner.peek(py, |call| call.as_ref().map_or(0, nanovllm_service::Call::pending))
    }

    /// Waits until some of the requests have finished, but no longer than a tenth of a second and the step under way, and
    /// takes steps meanwhile unless another caller does. Returns the sequences that have finished, and the tokens a second
    /// of the last prefill and the last decode step that were taken.
    fn advance(&self, py: Python<'_>) -> PyResult<(Vec<FinishedSequence>, Option<f64>, Option<f64>)> {
        let mut signals = Signals::default();
        let until = Instant::now() + INTERVAL;
        let result = self.inner.with(py, |call| {
            call.as_mut().map(|call| call.advance(until, &mut || signals.interrupted())).transpose()
        })?;
        self.door.release_ended();
        let progress = result.map_err(|error| step_error(&error, &mut signals))?.unwrap_or_default();
        Ok((finished(progress.events)?, progress.prefill_speed, progress.decode_speed))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.inner.with(py, |call| drop(call.take()))
    }
}
