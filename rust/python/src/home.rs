//! Where sequences live: a scheduler of its own or a running engine's, with the Python objects that refer into it.
//!
//! A scheduler owns its sequences, and Python's `Sequence` is a handle: its [`Cell`] holds the sequence itself before it is
//! added, the way to it while a scheduler has it, and the sequence again once it has finished, was dropped, or its scheduler is
//! gone. Locks are taken in one order: the home's value, its handles, a cell; under the last two runs no Python.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nanovllm_engine::{EngineError, Scheduler, Sequence};
use nanovllm_service::{Driver, Exclusive};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::{engine_error, precondition};
use crate::guarded::Turns;

/// What owns a scheduler.
pub(crate) trait Books: Send {
    /// The scheduler, with everything that callers have handed in; `None` once the engine was closed. The other methods come
    /// after it in the same turn.
    fn scheduler(&mut self) -> Option<&mut Scheduler>;

    /// Whether [`add`](Self::add) would take the sequence.
    fn check_add(&mut self, seq: &Sequence) -> Result<(), EngineError>;

    /// Queues a sequence.
    fn add(&mut self, seq: Sequence) -> Result<(), EngineError>;

    /// Whether these can be tokens of a sequence.
    fn check_tokens(&mut self, token_ids: &[u32]) -> Result<(), EngineError>;
}

impl Books for Scheduler {
    fn scheduler(&mut self) -> Option<&mut Scheduler> {
        Some(self)
    }

    fn check_add(&mut self, seq: &Sequence) -> Result<(), EngineError> {
        Self::check_add(self, seq)
    }

    fn add(&mut self, seq: Sequence) -> Result<(), EngineError> {
        self.add(seq)
    }

    fn check_tokens(&mut self, _: &[u32]) -> Result<(), EngineError> {
        Ok(()) // without a model there is no vocabulary
    }
}

/// A running engine's.
impl Books for Option<Driver> {
    fn scheduler(&mut self) -> Option<&mut Scheduler> {
        self.as_mut().map(|driver| driver.engine().scheduler_mut())
    }

    fn check_add(&mut self, seq: &Sequence) -> Result<(), EngineError> {
        self.as_mut().map_or(Ok(()), |driver| driver.engine_as_it_is().check_sequence(seq))
    }

    fn add(&mut self, seq: Sequence) -> Result<(), EngineError> {
        self.as_mut().map_or(Ok(()), |driver| driver.engine_as_it_is().add_sequence(seq))
    }

    fn check_tokens(&mut self, token_ids: &[u32]) -> Result<(), EngineError> {
        self.as_mut().map_or(Ok(()), |driver| driver.engine().limits().check_tokens(token_ids))
    }
}

/// Where a handle's sequence is.
pub(crate) enum Place {
    /// In the handle.
    Owned(Box<Sequence>),
    /// In a scheduler, under this id.
    Held(WeakHome, u64),
}

/// The part of a handle that Python does not see; it outlives the Python object while a scheduler has the sequence.
pub(crate) struct Cell(Mutex<Place>);

impl Cell {
    pub(crate) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self(Mutex::new(place)))
    }

    /// Nothing that can wait may run while this is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle as its scheduler knows it. The object is made when Python first asks for the sequence.
struct Handle {
    cell: Arc<Cell>,
    object: Option<Py<PyAny>>,
}

/// A scheduler with its handles. Python's Scheduler, BlockManager and Engine share it; handles refer to it weakly, so that a
/// queued sequence does not keep a model in memory.
pub(crate) struct Shared {
    handles: Mutex<HashMap<u64, Handle>>,
    /// Objects of sequences that have ended, to be dropped where the GIL is held and nothing else: that may run any Python.
    ended: Mutex<Vec<Py<PyAny>>>,
    value: Arc<Exclusive<dyn Books>>,
}

/// Any scheduler.
pub(crate) type Home = Arc<Shared>;
/// A reference that does not keep it.
pub(crate) type WeakHome = Weak<Shared>;

impl Shared {
    pub(crate) fn new(value: Arc<Exclusive<dyn Books>>) -> Home {
        Arc::new(Self { handles: Mutex::default(), ended: Mutex::default(), value })
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a finished or dropped sequence back to its handle, if it has one, under the value's lock.
    pub(crate) fn give_back(&self, seq: Sequence) {
        if let Some(handle) = self.handles().remove(&seq.seq_id) {
            *handle.cell.lock() = Place::Owned(Box::new(seq));
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(handle.object);
        }
    }

    /// Takes every sequence that has a handle out of the scheduler and gives it back, without blocks.
    pub(crate) fn give_all_back(&self, scheduler: &mut Scheduler) {
        let seq_ids: Vec<u64> = self.handles().keys().copied().collect();
        for seq in seq_ids.into_iter().filter_map(|seq_id| scheduler.abort(seq_id)) {
            self.give_back(seq);
        }
    }

    /// Lets go of the objects of sequences that have ended; to be called with the GIL and without a lock.
    pub(crate) fn release_ended(&self) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        drop(ended); // a statement of its own: by now the lock is free
    }

    /// Runs `work` on what owns the scheduler.
    pub(crate) fn books<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut (dyn Books + 'static)) -> R + Send,
    ) -> PyResult<R> {
        let result = self.value.peek(py, work);
        self.release_ended();
        result
    }

    /// Runs `work` on the scheduler.
    pub(crate) fn scheduler<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Scheduler) -> R + Send,
    ) -> PyResult<R> {
        self.books(py, |books| books.scheduler().map(work))?.ok_or_else(closed)
    }

    /// As [`scheduler`](Self::scheduler), for work that can end sequences; they go back to their handles.
    pub(crate) fn scheduler_ending<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Scheduler) -> R + Send,
    ) -> PyResult<R> {
        self.scheduler(py, |scheduler| {
            let result = work(scheduler);
            scheduler.take_finished().for_each(|seq| self.give_back(seq));
            result
        })
    }
}

impl Drop for Shared {
    /// Every handle that is still about gets its sequence, without blocks.
    fn drop(&mut self) {
        // Sequences first: the Python objects are dropped with the rest, and may run anything.
        let handles = std::mem::take(&mut *self.handles());
        if let Some(mut books) = self.value.try_salvage()
            && let Some(scheduler) = books.scheduler()
        {
            for (seq_id, handle) in &handles {
                if let Some(seq) = scheduler.abort(*seq_id) {
                    *handle.cell.lock() = Place::Owned(Box::new(seq));
                }
            }
        }
    }
}

/// The error of a call that comes too late.
pub(crate) fn closed() -> PyErr {
    PyRuntimeError::new_err("the engine was closed by exit()")
}

/// Moves the handle's sequence into the home; `object` is the handle's Python side.
pub(crate) fn add(py: Python<'_>, home: &Home, cell: &Arc<Cell>, object: Py<PyAny>) -> PyResult<()> {
    let mut object = Some(object); // whatever is left of it is dropped with the GIL
    let result = home.books(py, |books| {
        let block_size = books.scheduler()?.block_manager().block_size();
        let mut place = cell.lock();
        let Place::Owned(seq) = &mut *place else {
            let got = "one that a scheduler holds".to_owned();
            return Some(Err(EngineError::Precondition { method: "add", needs: "a new sequence", got }));
        };
        // Class and pool may differ in block size where a process has several engines; without blocks it does not matter.
        let sized = if seq.block_table.is_empty() { seq.set_block_size(block_size) } else { Ok(()) };
        if let Err(error) = sized.and_then(|()| books.check_add(seq)) {
            return Some(Err(error));
        }
        let held = Place::Held(Arc::downgrade(home), seq.seq_id);
        let Place::Owned(seq) = std::mem::replace(&mut *place, held) else { return None };
        home.handles().insert(seq.seq_id, Handle { cell: cell.clone(), object: object.take() });
        Some(books.add(*seq))
    })?;
    result.ok_or_else(closed)?.map_err(engine_error)
}

/// A sequence's id and cell.
pub(crate) type Member = (u64, Arc<Cell>);

/// The cells of sequences that the home holds, made where there is none; called under the value's lock, so that none can end
/// in between.
pub(crate) fn members(home: &Home, seq_ids: impl Iterator<Item = u64>) -> Vec<Member> {
    let mut handles = home.handles();
    let cell = |seq_id| {
        let held = || Handle { cell: Cell::new(Place::Held(Arc::downgrade(home), seq_id)), object: None };
        (seq_id, handles.entry(seq_id).or_insert_with(held).cell.clone())
    };
    seq_ids.map(cell).collect()
}

/// The Python objects of members: one for each sequence, however often it is asked for.
pub(crate) fn objects(py: Python<'_>, home: &Home, members: Vec<Member>) -> PyResult<Vec<Py<PyAny>>> {
    let known = |seq_id: u64, cell: &Arc<Cell>, made: Option<&Py<PyAny>>| {
        let mut handles = home.handles();
        // A sequence that has ended since has left; its cell has it.
        let handle = handles.get_mut(&seq_id).filter(|handle| Arc::ptr_eq(&handle.cell, cell))?;
        if handle.object.is_none() {
            handle.object = made.map(|object| object.clone_ref(py));
        }
        handle.object.as_ref().map(|object| object.clone_ref(py))
    };
    let object = |(seq_id, cell): Member| {
        if let Some(object) = known(seq_id, &cell, None) {
            return Ok(object);
        }
        let made = crate::sequence::wrap(py, cell.clone())?; // may run any Python: no lock is held
        Ok(known(seq_id, &cell, Some(&made)).unwrap_or(made))
    };
    members.into_iter().map(object).collect()
}

/// The id under which the home holds a handle's sequence.
pub(crate) fn held_by(home: &Home, cell: &Cell) -> PyResult<u64> {
    match &*cell.lock() {
        Place::Held(other, seq_id) if std::ptr::addr_eq(other.as_ptr(), Arc::as_ptr(home)) => Ok(*seq_id),
        Place::Held(..) => Err(precondition("the sequence is in another scheduler")),
        Place::Owned(_) => Err(precondition("the sequence is not in a scheduler")),
    }
}
