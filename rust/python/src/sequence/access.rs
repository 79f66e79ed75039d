//! The way from a handle to its sequence, wherever that is.

use std::sync::Arc;

use nanovllm_engine::{SamplingParams, Sequence};
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::prelude::*;

use super::PySequence;
use crate::arguments::count;
use crate::errors::engine_error;
use crate::home::{Cell, Place};

impl PySequence {
    pub(super) fn bind(&self, cell: Arc<Cell>) -> PyResult<()> {
        self.cell.set(cell).map_err(|_| PyRuntimeError::new_err("a Sequence is initialised once"))
    }

    /// The part that schedulers know.
    pub(crate) fn cell(&self) -> PyResult<&Arc<Cell>> {
        self.cell.get().ok_or_else(|| PyAttributeError::new_err("Sequence.__init__ has not been called"))
    }

    /// Whether it has what pickle leaves out.
    pub(crate) fn whole(&self, name: &str) -> PyResult<()> {
        if self.partial.get().is_none() {
            return Ok(());
        }
        Err(PyAttributeError::new_err(format!("a sequence that came through pickle has no {name}")))
    }

    /// Looks at the sequence, wherever it is. `look` may be called again.
    pub(crate) fn read<R: Send>(&self, py: Python<'_>, look: impl Fn(&Sequence) -> R + Send + Sync) -> PyResult<R> {
        let cell = self.cell()?;
        // It can leave its scheduler between the two looks, but it never comes back to one.
        for _ in 0..3 {
            let (home, seq_id) = match &*cell.lock() {
                Place::Owned(seq) => return Ok(look(seq)),
                Place::Held(home, seq_id) => (home.upgrade(), *seq_id),
            };
            if let Some(home) = home
                && let Some(seen) = home.scheduler(py, |scheduler| scheduler.get(seq_id).map(&look))?
            {
                return Ok(seen);
            }
            py.detach(std::thread::yield_now);
        }
        Err(PyRuntimeError::new_err("the sequence's scheduler is being dropped"))
    }

    /// Changes a sequence that no scheduler holds.
    pub(super) fn write(&self, name: &str, change: impl FnOnce(&mut Sequence)) -> PyResult<()> {
        match &mut *self.cell()?.lock() {
            Place::Owned(seq) => {
                change(seq);
                Ok(())
            }
            Place::Held(..) => {
                let text = format!("the sequence is in a scheduler, which alone changes {name}");
                Err(PyAttributeError::new_err(text))
            }
        }
    }

    pub(super) fn write_params(
        &self,
        py: Python<'_>,
        name: &str,
        change: impl Fn(SamplingParams) -> SamplingParams + Send,
    ) -> PyResult<()> {
        self.whole(name)?;
        let params = validate(change(self.read(py, |seq| seq.params.clone())?))?;
        for _ in 0..3 {
            let (home, seq_id) = match &mut *self.cell()?.lock() {
                Place::Owned(seq) => {
                    seq.params = params;
                    return Ok(());
                }
                Place::Held(home, seq_id) => (home.upgrade(), *seq_id),
            };
            if let Some(home) = home
                && home.scheduler(py, |scheduler| {
                    scheduler.sampling_params_mut(seq_id).map(|held| held.clone_from(&params)).is_some()
                })?
            {
                return Ok(());
            }
            py.detach(std::thread::yield_now);
        }
        Err(PyRuntimeError::new_err("the sequence's scheduler is being dropped"))
    }
}

/// As [`PySequence::read`], for what depends on the block size: the class's until a scheduler holds the sequence.
pub(super) fn read_blocks<R: Send>(
    slf: &Bound<'_, PySequence>,
    look: impl Fn(&Sequence) -> R + Send + Sync,
) -> PyResult<R> {
    sync_block_size(slf)?;
    slf.get().read(slf.py(), look)
}

/// Cuts a sequence that no scheduler holds into blocks of the class's current size.
pub(crate) fn sync_block_size(slf: &Bound<'_, PySequence>) -> PyResult<()> {
    let block_size = block_size(slf)?;
    match &mut *slf.get().cell()?.lock() {
        Place::Owned(seq) => seq.set_block_size(block_size).map_err(engine_error),
        Place::Held(..) => Ok(()),
    }
}

/// The class's block size, which a program may set.
pub(super) fn block_size(slf: &Bound<'_, PySequence>) -> PyResult<usize> {
    count(&slf.getattr("block_size")?, "Sequence.block_size")
}

/// Checks what the engine checks of a request.
fn validate(params: SamplingParams) -> PyResult<SamplingParams> {
    params.validate().map_err(|error| engine_error(error.into()))?;
    Ok(params)
}
