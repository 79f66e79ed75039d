//! Python's `Sequence` objects for the sequences in a home.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::by_hand::handle::PySequence;
use crate::by_hand::home::{Home, Resident, Whereabouts};

/// The Python objects of residents: one for each sequence, however often it is asked for.
pub(crate) fn objects(py: Python<'_>, home: &Home, residents: Vec<Resident>) -> PyResult<Vec<Py<PyAny>>> {
    let object = |resident: Resident| {
        if let Some(object) = home.object(py, &resident, None) {
            return Ok(object);
        }
        let made = made(py, resident.1.clone())?; // may run any Python: no lock is held
        Ok(home.object(py, &resident, Some(&made)).unwrap_or(made))
    };
    residents.into_iter().map(object).collect()
}

/// A new Python object for a sequence, wherever that is.
fn made(py: Python<'_>, whereabouts: Arc<Whereabouts>) -> PyResult<Py<PyAny>> {
    let class = py.import("nanovllm.engine.sequence")?.getattr("Sequence")?;
    let object = class.call_method1("__new__", (&class,))?;
    object.cast::<PySequence>()?.get().bind(whereabouts)?;
    Ok(object.unbind())
}
