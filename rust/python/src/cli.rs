//! The command line, given to the console script.

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use nanovllm_cli::Host;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::signals::check_signals;

/// Runs the command `nanovllm` with `args`, the program's name first, and returns the exit code. `resolve` turns what the
/// user calls a model into a path; the command reports an exception it raises. Only what is no `Exception`
/// (KeyboardInterrupt) is raised again, once the command has cleaned up.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // pyo3 extracts lists by value
pub(crate) fn run_command(py: Python<'_>, args: Vec<OsString>, resolve: Bound<'_, PyAny>) -> PyResult<u8> {
    let resolve = resolve.unbind();
    let raised = Mutex::new(None);
    let keep = |error: PyErr| *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    let code = py.detach(|| {
        let resolve = |model: &str| {
            Python::attach(|py| {
                resolve.call1(py, (model,)).and_then(|path| path.extract(py)).map_err(|error| {
                    let text = error.value(py).to_string();
                    if !error.is_instance_of::<PyException>(py) {
                        keep(error);
                    }
                    text
                })
            })
        };
        let interrupted = || {
            let signal = check_signals().err();
            signal.map(keep).is_some()
        };
        nanovllm_cli::run(args, &Host { resolve: &resolve, interrupted: &interrupted })
    });
    raised.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(code), Err)
}
