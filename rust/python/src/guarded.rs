//! How Python's threads take turns with a value that they share: a thread that waits for its turn never holds the GIL.

use nanovllm_service::{Exclusive, Refusal};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Work on a shared value.
pub(crate) trait Turns<T: ?Sized> {
    /// Runs `work` on the value without the GIL.
    fn with<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R + Send) -> PyResult<R>;

    /// As [`with`](Self::with), for work that takes no time and calls no Python: the GIL is kept if the value is free.
    fn peek<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R + Send) -> PyResult<R>;
}

impl<T: Send + ?Sized> Turns<T> for Exclusive<T> {
    fn with<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R + Send) -> PyResult<R> {
        py.detach(|| self.lock().map(|mut turn| turn.run(work))).map_err(|refusal| refused(&refusal))
    }

    fn peek<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R + Send) -> PyResult<R> {
        match self.try_lock() {
            Ok(Some(mut turn)) => Ok(turn.run(work)),
            Ok(None) => self.with(py, work),
            Err(refusal) => Err(refused(&refusal)),
        }
    }
}

/// The exception for a turn that cannot be had.
pub(crate) fn refused(refusal: &Refusal) -> PyErr {
    PyRuntimeError::new_err(refusal.to_string())
}
