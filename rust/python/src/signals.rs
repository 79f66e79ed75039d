//! Python's signals while Rust works.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long a handler may wait: asking takes the GIL, which another thread may be using.
const INTERVAL: Duration = Duration::from_millis(50);

/// Runs Python's signal handlers now and then during a call that has let go of the GIL, and keeps what they raise.
#[derive(Default)]
pub(crate) struct Signals {
    asked: Option<Instant>,
    raised: Option<PyErr>,
}

impl Signals {
    /// Whether a handler has raised an exception, which is to end the call. In another thread than the main one none runs.
    pub(crate) fn interrupted(&mut self) -> bool {
        self.interrupted_or(|_| Ok(()))
    }

    /// As [`interrupted`](Self::interrupted), and calls `also` as often as handlers run; what it raises ends the call too.
    pub(crate) fn interrupted_or(&mut self, also: impl FnOnce(Python<'_>) -> PyResult<()>) -> bool {
        if self.raised.is_none() && self.asked.is_none_or(|asked| asked.elapsed() >= INTERVAL) {
            self.raised = Python::attach(|py| py.check_signals().and_then(|()| also(py))).err();
            self.asked = Some(Instant::now());
        }
        self.raised.is_some()
    }

    /// What a handler has raised.
    pub(crate) fn take(&mut self) -> Option<PyErr> {
        self.raised.take()
    }
}

/// Runs Python's signal handlers; in another thread than the main one it does nothing. What they raise is the error.
#[allow(clippy::redundant_closure_for_method_calls)] // the method itself is not general enough over lifetimes
pub(crate) fn check_signals() -> PyResult<()> {
    Python::attach(|py| py.check_signals())
}
