//! A handle: Python's `Sequence` object, and the way from it to its sequence, wherever that is (see
//! [`crate::by_hand::home`]).

use std::sync::{Arc, OnceLock};

use nanovllm_engine::{SamplingParams, Scheduler, Sequence};
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::prelude::*;

use crate::arguments::count;
use crate::by_hand::home::{Place, Whereabouts};
use crate::errors::engine_error;

/// The base of `nanovllm.engine.sequence.Sequence`.
#[pyclass(frozen, subclass, weakref, module = "nanovllm._core", name = "Sequence")]
#[derive(Default)]
pub(crate) struct PySequence {
    /// Unset until the object has a sequence.
    whereabouts: OnceLock<Arc<Whereabouts>>,
    /// Set where it came through pickle, which carries neither id nor status nor sampling parameters.
    pickled: OnceLock<()>,
}

impl PySequence {
    /// Gives the object its sequence.
    pub(crate) fn bind(&self, whereabouts: Arc<Whereabouts>) -> PyResult<()> {
        self.whereabouts.set(whereabouts).map_err(|_| PyRuntimeError::new_err("a Sequence is initialised once"))
    }

    /// Gives the object a sequence of its own.
    pub(crate) fn bind_own(&self, seq: Sequence) -> PyResult<()> {
        self.bind(Whereabouts::new(Place::Handle(Box::new(seq))))
    }

    /// Gives the object a sequence of its own that came through pickle.
    pub(crate) fn bind_pickled(&self, seq: Sequence) -> PyResult<()> {
        self.bind_own(seq)?;
        self.pickled.get_or_init(|| ());
        Ok(())
    }

    /// Where its sequence is.
    pub(crate) fn whereabouts(&self) -> PyResult<&Arc<Whereabouts>> {
        self.whereabouts.get().ok_or_else(|| PyAttributeError::new_err("Sequence.__init__ has not been called"))
    }

    /// Refuses a sequence that came through pickle, which leaves out `name`.
    pub(crate) fn whole(&self, name: &str) -> PyResult<()> {
        if self.pickled.get().is_none() {
            return Ok(());
        }
        Err(PyAttributeError::new_err(format!("a sequence that came through pickle has no {name}")))
    }

    /// Looks at the sequence, wherever it is.
    pub(crate) fn read<R: Send>(&self, py: Python<'_>, look: impl Fn(&Sequence) -> R + Send + Sync) -> PyResult<R> {
        self.find(py, |seq| look(seq), |scheduler, seq_id| scheduler.get(seq_id).map(&look))
    }

    /// Changes a sequence that is in the handle.
    pub(crate) fn write(&self, name: &str, change: impl FnOnce(&mut Sequence)) -> PyResult<()> {
        match &mut *self.whereabouts()?.lock() {
            Place::Handle(seq) => {
                change(seq);
                Ok(())
            }
            Place::Home(..) => {
                let text = format!("the sequence is in a scheduler, which alone changes {name}");
                Err(PyAttributeError::new_err(text))
            }
        }
    }

    /// Changes the sampling parameter `name`, wherever the sequence is; they are checked as those of a request are.
    pub(crate) fn write_params(
        &self,
        py: Python<'_>,
        name: &str,
        change: impl Fn(SamplingParams) -> SamplingParams + Send,
    ) -> PyResult<()> {
        self.whole(name)?;
        let params = change(self.read(py, |seq| seq.params.clone())?);
        params.validate().map_err(|error| engine_error(error.into()))?;
        self.find(
            py,
            |seq| seq.set_params(params.clone(), &[]),
            |scheduler, seq_id| scheduler.set_sampling_params(seq_id, params.clone()),
        )
    }

    /// Runs `in_handle` on a sequence in the handle, else `in_home` on its scheduler, which gives None if it has left.
    fn find<R: Send>(
        &self,
        py: Python<'_>,
        in_handle: impl Fn(&mut Sequence) -> R,
        in_home: impl Fn(&mut Scheduler, u64) -> Option<R> + Send + Sync,
    ) -> PyResult<R> {
        // Between the two looks the sequence can move into its handle, and another thread can add it to another home.
        for _ in 0..3 {
            let (home, seq_id) = match &mut *self.whereabouts()?.lock() {
                Place::Handle(seq) => return Ok(in_handle(seq)),
                Place::Home(home, seq_id) => (home.upgrade(), *seq_id),
            };
            if let Some(home) = home
                && let Some(found) = home.scheduler(py, |scheduler| in_home(scheduler, seq_id))?
            {
                return Ok(found);
            }
            py.detach(std::thread::yield_now);
        }
        Err(PyRuntimeError::new_err("the sequence's scheduler is being dropped"))
    }
}

/// As [`PySequence::read`], for what depends on the block size: the class's until the sequence is in a scheduler.
pub(crate) fn read_blocks<R: Send>(
    handle: &Bound<'_, PySequence>,
    look: impl Fn(&Sequence) -> R + Send + Sync,
) -> PyResult<R> {
    sync_block_size(handle)?;
    handle.get().read(handle.py(), look)
}

/// Cuts a sequence that is in its handle into blocks of the class's current size.
pub(crate) fn sync_block_size(handle: &Bound<'_, PySequence>) -> PyResult<()> {
    let block_size = block_size(handle)?;
    match &mut *handle.get().whereabouts()?.lock() {
        Place::Handle(seq) => seq.set_block_size(block_size).map_err(engine_error),
        Place::Home(..) => Ok(()),
    }
}

/// The class's block size, which a program may set.
pub(crate) fn block_size(handle: &Bound<'_, PySequence>) -> PyResult<usize> {
    count(&handle.getattr("block_size")?, "Sequence.block_size")
}
