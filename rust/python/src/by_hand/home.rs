//! Homes: where the data of Python's `Sequence` objects lives while a scheduler has it.
//!
//! A scheduler owns its sequences, yet a Python program keeps the `Sequence` objects that it has added, and may look at them
//! at any time. So such an object is only a *handle*, and its [`Whereabouts`] say where the sequence is now:
//!
//! 1. Before it is added, the sequence is in the handle itself.
//! 2. [`Home::add`] moves it to a home: a scheduler (the program's own, or a running engine's) together with the handles of
//!    its sequences.
//! 3. When the sequence has finished or is aborted, or the home goes away, it moves back into the handle.
//!
//! A home holds its handles, Python objects included, so that it hands out the object that was added, and not another of
//! the same content. A handle refers to its home weakly, so that a `Sequence` that a program keeps does not keep a model in
//! memory. What does keep a home are the Python objects that look into its scheduler (`Scheduler`, `BlockManager`, `Block`)
//! and a running engine's [`Door`](crate::door::Door).
//!
//! There are three kinds of locks: that of the scheduler's owner, its [`Keeper`] (the engine's turn), that of the home's
//! handles, and one for each handle's whereabouts. The keeper's comes first. The other two are taken in either order, so both
//! are held only under the keeper's lock, or after the engine was closed, when nobody can add to it. They are apart from it so
//! that they can be read while the engine computes. No Python runs while either is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nanovllm_engine::{EngineError, Scheduler, Sequence};
use nanovllm_service::{Driver, Exclusive};
use pyo3::prelude::*;

use crate::ended::Ended;
use crate::errors::{closed, engine_error, precondition};
use crate::guarded::Turns;

/// Where a handle's sequence is.
pub(crate) enum Place {
    /// In the handle.
    Handle(Box<Sequence>),
    /// In this home, under this id.
    Home(Weak<Home>, u64),
}

/// The part of a handle that Python does not see. A home shares it, so that it can move the sequence whether or not there
/// is a Python object.
pub(crate) struct Whereabouts(Mutex<Place>);

impl Whereabouts {
    pub(crate) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self(Mutex::new(place)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What owns a home's scheduler and decides what may be added to it: a scheduler by itself, or a running engine.
pub(crate) trait Keeper: Send {
    /// The scheduler, once everything that callers have handed in is in it; `None` after the engine was closed.
    fn scheduler(&mut self) -> Option<&mut Scheduler>;

    /// Whether [`add`](Self::add) would take the sequence. Both are called only after [`scheduler`](Self::scheduler) has given
    /// the scheduler, under the same lock.
    fn check_add(&mut self, seq: &Sequence) -> Result<(), EngineError>;

    /// Queues a sequence.
    fn add(&mut self, seq: Sequence) -> Result<(), EngineError>;

    /// Whether these can be tokens of a sequence.
    fn check_tokens(&mut self, token_ids: &[u32]) -> Result<(), EngineError>;
}

impl Keeper for Scheduler {
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

/// A running engine, until it is closed: then there is nothing to check, and callers learn it from
/// [`scheduler`](Keeper::scheduler).
impl Keeper for Option<Driver> {
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

/// A handle as its home knows it. The Python object is made when Python first asks for the sequence.
struct Handle {
    whereabouts: Arc<Whereabouts>,
    object: Option<Py<PyAny>>,
}

/// A sequence's id, and the whereabouts of its handle.
pub(crate) type Resident = (u64, Arc<Whereabouts>);

/// A scheduler, and the handles of the sequences in it by sequence id.
pub(crate) struct Home {
    handles: Mutex<HashMap<u64, Handle>>,
    /// Takes the Python objects of handles whose sequences have left.
    ended: Arc<Ended>,
    keeper: Arc<Exclusive<dyn Keeper>>,
}

impl Home {
    /// The home of a scheduler that a program has made.
    pub(crate) fn of_scheduler(scheduler: Scheduler) -> Arc<Self> {
        let keeper = Arc::new(Exclusive::new("the scheduler", scheduler));
        Arc::new(Self { handles: Mutex::default(), ended: Arc::default(), keeper })
    }

    /// The home of a running engine's sequences, to which the driver hands those that end; called in the engine's turn.
    pub(crate) fn of_engine(
        engine: &Arc<Exclusive<Option<Driver>>>,
        driver: Option<&mut Driver>,
        ended: &Arc<Ended>,
    ) -> Arc<Self> {
        let home = Arc::new(Self { handles: Mutex::default(), ended: ended.clone(), keeper: engine.clone() });
        if let Some(driver) = driver {
            let home = Arc::downgrade(&home);
            driver.set_sink(Box::new(move |seq| {
                if let Some(home) = home.upgrade() {
                    home.give_back(seq);
                }
            }));
        }
        home
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a sequence that has finished or was aborted into its handle, if it has one; called under the keeper's lock.
    fn give_back(&self, seq: Sequence) {
        if let Some(Handle { whereabouts, object }) = self.handles().remove(&seq.seq_id) {
            *whereabouts.lock() = Place::Handle(Box::new(seq));
            if let Some(object) = object {
                self.ended.keep(object);
            }
        }
    }

    /// Takes every sequence that has a handle out of the scheduler and moves it into its handle, without blocks.
    pub(crate) fn give_all_back(&self, scheduler: &mut Scheduler) {
        let seq_ids: Vec<u64> = self.handles().keys().copied().collect();
        for seq in seq_ids.into_iter().filter_map(|seq_id| scheduler.abort(seq_id)) {
            self.give_back(seq);
        }
    }

    /// Runs `work` on what owns the scheduler.
    pub(crate) fn keeper<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut (dyn Keeper + 'static)) -> R + Send,
    ) -> PyResult<R> {
        let result = self.keeper.peek(py, work);
        self.ended.release();
        result
    }

    /// Runs `work` on the scheduler.
    pub(crate) fn scheduler<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Scheduler) -> R + Send,
    ) -> PyResult<R> {
        self.keeper(py, |keeper| keeper.scheduler().map(work))?.ok_or_else(closed)
    }

    /// As [`scheduler`](Self::scheduler), for work that can end sequences; they move into their handles.
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

    /// Moves a handle's sequence here; `object` is the Python side of the handle.
    pub(crate) fn add(
        self: &Arc<Self>,
        py: Python<'_>,
        whereabouts: &Arc<Whereabouts>,
        object: Py<PyAny>,
    ) -> PyResult<()> {
        let mut object = Some(object); // where it is not taken it is dropped at the end, where the GIL is held
        let result = self.keeper(py, |keeper| {
            let block_size = keeper.scheduler()?.block_manager().block_size();
            let mut place = whereabouts.lock();
            let Place::Handle(seq) = &mut *place else {
                let got = "one that a scheduler holds".to_owned();
                return Some(Err(EngineError::Precondition { method: "add", needs: "a new sequence", got }));
            };
            // The class `Sequence` has one block size for the process, which may not be this pool's; a sequence without
            // blocks can still take the pool's.
            let sized = if seq.block_table.is_empty() { seq.set_block_size(block_size) } else { Ok(()) };
            if let Err(error) = sized.and_then(|()| keeper.check_add(seq)) {
                return Some(Err(error));
            }
            let here = Place::Home(Arc::downgrade(self), seq.seq_id);
            let Place::Handle(seq) = std::mem::replace(&mut *place, here) else { return None };
            self.handles().insert(seq.seq_id, Handle { whereabouts: whereabouts.clone(), object: object.take() });
            Some(keeper.add(*seq))
        })?;
        result.ok_or_else(closed)?.map_err(engine_error)
    }

    /// The handles of sequences that are here, made where there is none; called under the keeper's lock, so that no sequence
    /// can leave meanwhile.
    pub(crate) fn residents(self: &Arc<Self>, seq_ids: impl Iterator<Item = u64>) -> Vec<Resident> {
        let mut handles = self.handles();
        let resident = |seq_id| {
            let handle = handles.entry(seq_id).or_insert_with(|| {
                let whereabouts = Whereabouts::new(Place::Home(Arc::downgrade(self), seq_id));
                Handle { whereabouts, object: None }
            });
            (seq_id, handle.whereabouts.clone())
        };
        seq_ids.map(resident).collect()
    }

    /// The Python object of a resident, which is `made` from now on if there was none. `None` where there is none still, or
    /// the sequence has left since.
    pub(crate) fn object(
        &self,
        py: Python<'_>,
        (seq_id, whereabouts): &Resident,
        made: Option<&Py<PyAny>>,
    ) -> Option<Py<PyAny>> {
        let mut handles = self.handles();
        let handle = handles.get_mut(seq_id).filter(|handle| Arc::ptr_eq(&handle.whereabouts, whereabouts))?;
        if handle.object.is_none() {
            handle.object = made.map(|object| object.clone_ref(py));
        }
        handle.object.as_ref().map(|object| object.clone_ref(py))
    }

    /// The id of a handle's sequence. An error if it is not in this home.
    pub(crate) fn id_of(self: &Arc<Self>, whereabouts: &Whereabouts) -> PyResult<u64> {
        match &*whereabouts.lock() {
            Place::Home(home, seq_id) if std::ptr::addr_eq(home.as_ptr(), Arc::as_ptr(self)) => Ok(*seq_id),
            Place::Home(..) => Err(precondition("the sequence is in another scheduler")),
            Place::Handle(_) => Err(precondition("the sequence is not in a scheduler")),
        }
    }
}

impl Drop for Home {
    /// Moves every sequence into its handle, without blocks.
    fn drop(&mut self) {
        // Python objects are dropped after this: that may run any code, which must find the sequences moved.
        let handles = std::mem::take(&mut *self.handles());
        if let Some(mut keeper) = self.keeper.try_salvage()
            && let Some(scheduler) = keeper.scheduler()
        {
            for (seq_id, handle) in &handles {
                if let Some(seq) = scheduler.abort(*seq_id) {
                    *handle.whereabouts.lock() = Place::Handle(Box::new(seq));
                }
            }
        }
    }
}
