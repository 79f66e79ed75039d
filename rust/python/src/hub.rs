//! `Hub`: the requests of asynchronous callers, whose news one thread hands on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::door::Door;
use crate::engine::Engine;
use crate::errors::service_error;
use crate::outcome::news;

/// Requests that come and go while one thread waits for the news of all.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Hub {
    inner: nanovllm_service::Hub,
    engine: Py<Engine>,
    door: Arc<Door>,
}

impl Hub {
    pub(crate) fn new(inner: nanovllm_service::Hub, engine: Py<Engine>, door: Arc<Door>) -> Self {
        Self { inner, engine, door }
    }
}

#[pymethods]
impl Hub {
    /// Takes requests in as `Engine.submit` does, each of whose tokens is news.
    fn submit(&self, py: Python<'_>, requests: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<()> {
        let read = self.engine.get().read_requests(py, requests, skip_special_tokens, true)?;
        self.inner.submit(read).map_err(|error| service_error(&error))
    }

    /// Takes prompts to be embedded in as `Engine.embed` does.
    fn embed(
        &self,
        py: Python<'_>,
        requests: &Bound<'_, PyAny>,
        pooling: &Bound<'_, PyAny>,
        normalize: bool,
    ) -> PyResult<()> {
        let read = self.engine.get().read_embeddings(py, requests, pooling, normalize)?;
        self.inner.submit(read).map_err(|error| service_error(&error))
    }

    /// Drops requests, of which nothing more is told.
    #[allow(clippy::needless_pass_by_value)] // as pyo3 extracts a list
    fn drop_requests(&self, seq_ids: Vec<u64>) -> PyResult<()> {
        self.inner.drop_requests(&seq_ids).map_err(|error| service_error(&error))
    }

    /// Waits for news as `Call.news` gives them, for so many seconds at most; a request that failed is `(seq_id, exception)`.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<Vec<Py<PyAny>>> {
        // A day is for ever to a thread that looks up now and then.
        let until = Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0));
        let events = py.detach(|| self.inner.wait(until)).map_err(|error| service_error(&error))?;
        self.door.release_ended();
        news(py, events)
    }

    /// Drops all requests, and has `wait` raise.
    fn close(&self) -> PyResult<()> {
        self.inner.close().map_err(|error| service_error(&error))
    }
}
