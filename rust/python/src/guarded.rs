//! A value that threads take turns with, never holding the GIL while they wait.

use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread::ThreadId;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A value behind a lock. Two ways to wait forever are errors instead: a Python signal handler that comes back to the value in
/// the middle of a call of its own thread, and a forked process, in which the device's threads do not exist.
pub(crate) struct Guarded<T: ?Sized> {
    holder: Mutex<Option<ThreadId>>,
    process: u32,
    /// What the value is to whom reads an error.
    name: &'static str,
    value: Mutex<T>,
}

const POISONED: &str = "is unusable: an earlier call failed inside it";

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::named("the engine", value)
    }

    /// A value that errors call `name`.
    pub(crate) fn named(name: &'static str, value: T) -> Self {
        Self { value: Mutex::new(value), holder: Mutex::new(None), process: std::process::id(), name }
    }
}

impl<T: ?Sized> Guarded<T> {
    /// Whether it was made in this process, and not in one that has forked since.
    pub(crate) fn is_of_this_process(&self) -> bool {
        std::process::id() == self.process
    }

    fn error(&self, text: &str) -> PyErr {
        PyRuntimeError::new_err(format!("{} {text}", self.name))
    }
}

impl<T: Send + ?Sized> Guarded<T> {
    /// Runs `work` on the value without the GIL.
    pub(crate) fn with<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R + Send) -> PyResult<R> {
        let me = std::thread::current().id();
        if *self.holder.lock().unwrap_or_else(PoisonError::into_inner) == Some(me) {
            let text = "is in the middle of a call on this thread (was this a signal handler?)";
            return Err(self.error(text));
        }
        if !self.is_of_this_process() {
            return Err(self.error("does not survive fork(); make what uses it in the child"));
        }
        py.detach(|| {
            let mut value = self.value.lock().map_err(|_| POISONED)?;
            *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(me);
            let result = work(&mut value);
            *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
            Ok(result)
        })
        .map_err(|text: &str| self.error(text))
    }

    /// As [`with`](Self::with), for work that takes no time and calls no Python: the GIL is kept if the value is free.
    pub(crate) fn peek<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut T) -> R + Send) -> PyResult<R> {
        if self.is_of_this_process() {
            match self.value.try_lock() {
                Ok(mut value) => return Ok(work(&mut value)),
                Err(TryLockError::Poisoned(_)) => return Err(self.error(POISONED)),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.with(py, work)
    }

    /// The value, when nobody else can have it any more; it may be in the state an earlier failure left.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
