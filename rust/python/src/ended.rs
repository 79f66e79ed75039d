//! Python objects that Rust lets go of where it may not drop them.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

/// Python objects of sequences that have ended. To drop one may run any Python code, which may call the engine again, so
/// they are kept until the GIL is held and nothing else is.
#[derive(Default)]
pub(crate) struct Ended(Mutex<Vec<Py<PyAny>>>);

impl Ended {
    /// Keeps an object until the next [`release`](Self::release).
    pub(crate) fn keep(&self, object: Py<PyAny>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(object);
    }

    /// Drops what was kept; to be called with the GIL and without a lock.
    pub(crate) fn release(&self) {
        let ended = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(ended); // a statement of its own: by now the lock is free
    }
}
