//! `Call`: one caller's requests, for as long as it waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nanovllm_service::{Computed, Event, Exclusive};
use pyo3::prelude::*;

use crate::door::Door;
use crate::errors::service_error;
use crate::guarded::Turns;
use crate::outcome::{FinishedSequence, finished, news, step_error};
use crate::signals::Signals;

/// How long a caller waits at most before Python's signal handlers run and it reports.
const INTERVAL: Duration = Duration::from_millis(100);

/// Requests that one caller waits for. What has not finished when the waiting ends is dropped, all at once, whatever ends
/// it; so is everything when the object goes.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Call {
    inner: Exclusive<Option<nanovllm_service::Call>>,
    door: Arc<Door>,
    /// What the engine had computed when the requests were taken.
    before: Computed,
}

impl Call {
    pub(crate) fn new(inner: nanovllm_service::Call, door: Arc<Door>, before: Computed) -> Self {
        Self { inner: Exclusive::new("the call", Some(inner)), door, before }
    }
}

#[pymethods]
impl Call {
    /// Requests that have not finished.
    #[getter]
    fn pending(&self, py: Python<'_>) -> PyResult<usize> {
        self.inner.peek(py, |call| call.as_ref().map_or(0, nanovllm_service::Call::pending))
    }

    /// Waits for all requests, taking steps unless another caller does, and returns their sequences as they finished. What
    /// is not finished when an exception ends this, Python's signal handlers' or that of `report`, is dropped before Python
    /// sees it: no frame that a traceback keeps has hold of the requests.
    ///
    /// `report` is called about ten times a second, and also within a step: with the sequences that have finished since its
    /// last call, the prompt tokens and new tokens that the engine has computed since the requests were taken (for other
    /// callers, too), and the tokens a second of the last prefill and decode step, None where there was none.
    #[pyo3(signature = (report = None))]
    fn results(&self, py: Python<'_>, report: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Py<FinishedSequence>>> {
        let report = report.map(|report| report.clone().unbind());
        let results = self.collect(py, report.as_ref());
        let dropped = self.close(py);
        let results = results?;
        dropped?;
        Ok(results)
    }

    /// Waits for news of its requests, for a tenth of a second at most, taking steps unless another caller does: a list of
    /// `(seq_id, token_ids, logprobs, text)` of new tokens and `FinishedSequence`s with the rest of the text. Of requests that are
    /// not watched there is no news before they finish.
    fn news(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let news = self.wait_for_news(py);
        if news.is_err() {
            // Before Python sees the exception, which may come back to whoever holds the call.
            self.close(py)?;
        }
        news
    }

    /// Drops what has not finished.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.with(py, |call| drop(call.take()))
    }
}

/// Tokens a second of the last prefill and the last decode step.
type Speeds = (Option<f64>, Option<f64>);

impl Call {
    fn wait_for_news(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let mut signals = Signals::default();
        let until = Instant::now() + INTERVAL;
        let result = self.inner.with(py, |call| {
            call.as_mut().map(|call| call.advance(until, &mut || signals.interrupted())).transpose()
        })?;
        self.door.release_ended();
        let events = result.map_err(|error| step_error(&error, &mut signals))?.unwrap_or_default().events;
        py.check_signals()?;
        if let Some(Event::Failed { error, .. }) = events.iter().find(|event| matches!(event, Event::Failed { .. })) {
            return Err(service_error(error));
        }
        news(py, events)
    }

    fn collect(&self, py: Python<'_>, report: Option<&Py<PyAny>>) -> PyResult<Vec<Py<FinishedSequence>>> {
        let (mut results, mut speeds) = (Vec::new(), Speeds::default());
        while self.pending(py)? > 0 {
            let mut signals = Signals::default();
            let until = Instant::now() + INTERVAL;
            let result = self.inner.with(py, |call| {
                let mut interrupted = || signals.interrupted_or(|py| self.report(py, report, &[], speeds));
                call.as_mut().map(|call| call.advance(until, &mut interrupted)).transpose()
            })?;
            self.door.release_ended();
            let progress = result.map_err(|error| step_error(&error, &mut signals))?.unwrap_or_default();
            speeds = (progress.prefill_speed.or(speeds.0), progress.decode_speed.or(speeds.1));
            let begin = results.len();
            for sequence in finished(progress.events)? {
                results.push(Py::new(py, sequence)?);
            }
            self.report(py, report, &results[begin..], speeds)?;
            // Where another caller drives, no handler has run yet.
            py.check_signals()?;
        }
        Ok(results)
    }

    fn report(
        &self,
        py: Python<'_>,
        report: Option<&Py<PyAny>>,
        finished: &[Py<FinishedSequence>],
        (prefill_speed, decode_speed): Speeds,
    ) -> PyResult<()> {
        let Some(report) = report else { return Ok(()) };
        let Computed { prefilled, generated } = self.door.service().computed().map_err(|e| service_error(&e))?;
        let prefilled = prefilled.saturating_sub(self.before.prefilled);
        let generated = generated.saturating_sub(self.before.generated);
        let finished: Vec<_> = finished.iter().map(|sequence| sequence.clone_ref(py)).collect();
        report.call1(py, (finished, prefilled, generated, prefill_speed, decode_speed))?;
        Ok(())
    }
}
