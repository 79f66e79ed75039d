//! `Scheduler`: nanovllm_engine's, of its own or a running engine's, stepped by hand.

use std::sync::{Arc, OnceLock};

use nanovllm_engine::{EngineConfig, Scheduler, SchedulingPolicy};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::arguments::{count, ids_in_any_order, scheduling_policy, token_ids};
use crate::by_hand::block_manager::PyBlockManager;
use crate::by_hand::handle::PySequence;
use crate::by_hand::home::{Home, Resident};
use crate::by_hand::objects::objects;
use crate::door::Door;
use crate::engine::Engine;
use crate::errors::{closed, engine_error, precondition};
use crate::guarded::Turns;

/// Whose scheduler.
enum Source {
    /// One that a program has made.
    Own(Arc<Home>),
    /// A running engine's.
    Engine(Arc<Door>),
}

/// Decides which sequences the next step computes. It owns the sequences that are added until they finish; the objects that
/// were added stay the handles to them.
#[pyclass(frozen, subclass, module = "nanovllm.engine.scheduler", name = "Scheduler")]
pub(crate) struct PyScheduler {
    source: Source,
    block_manager: OnceLock<Py<PyBlockManager>>,
    #[pyo3(get)]
    block_size: usize,
}

#[pymethods]
impl PyScheduler {
    #[new]
    fn new(config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (source, block_size) = if let Ok(engine) = config.cast::<Engine>() {
            let door = engine.get().door();
            let block_size = door.service().engine().peek(config.py(), |driver| {
                driver.as_mut().map(|driver| driver.engine().scheduler().block_manager().block_size())
            })?;
            door.release_ended();
            (Source::Engine(Arc::clone(door)), block_size.ok_or_else(closed)?)
        } else {
            let scheduler = scheduler(config)?;
            let block_size = scheduler.block_manager().block_size();
            (Source::Own(Home::of_scheduler(scheduler)), block_size)
        };
        Ok(Self { source, block_manager: OnceLock::new(), block_size })
    }

    /// For subclasses to call: the scheduler is made by `__new__`.
    #[allow(clippy::unused_self)] // a method of Python's
    fn __init__(&self, config: &Bound<'_, PyAny>) {
        let _ = config;
    }

    /// Whether no sequence waits or runs.
    fn is_finished(&self, py: Python<'_>) -> PyResult<bool> {
        self.home(py)?.scheduler(py, |scheduler| scheduler.is_finished())
    }

    /// Queues a sequence, which is the scheduler's until it finishes.
    fn add(&self, seq: &Bound<'_, PySequence>) -> PyResult<()> {
        let pickled = "a pickled sequence has no sampling parameters, so it cannot be scheduled";
        seq.get().whole("sampling parameters").map_err(|_| precondition(pickled))?;
        let whereabouts = seq.get().whereabouts()?;
        self.home(seq.py())?.add(seq.py(), whereabouts, seq.clone().into_any().unbind())
    }

    /// Decides the next step: its sequences, and whether it is a prefill. A step that was not answered with `postprocess` is
    /// taken back first. Empty when nothing is left to do.
    fn schedule(&self, py: Python<'_>) -> PyResult<(Vec<Py<PyAny>>, bool)> {
        let home = self.home(py)?;
        let (residents, is_prefill) = home.scheduler_ending(py, |scheduler| {
            let schedule = scheduler.schedule();
            (home.residents(scheduler.scheduled().map(|seq| seq.seq_id)), schedule.is_prefill)
        })?;
        Ok((objects(py, home, residents)?, is_prefill))
    }

    /// Books the step's tokens: the sequences that `schedule` returned, and one token for each. That of a sequence whose
    /// prompt is not finished is ignored.
    fn postprocess(&self, seqs: &Bound<'_, PyAny>, token_ids: &Bound<'_, PyAny>, is_prefill: bool) -> PyResult<()> {
        let py = seqs.py();
        let mut handles = Vec::new();
        for seq in seqs.try_iter()? {
            handles.push(seq?.cast::<PySequence>()?.get().whereabouts()?.clone());
        }
        let token_ids = self::token_ids(token_ids)?;
        let home = self.home(py)?;
        home.keeper(py, |keeper| keeper.check_tokens(&token_ids))?.map_err(engine_error)?;
        let result = home.scheduler_ending(py, |scheduler| {
            let step = home.residents(scheduler.scheduled().map(|seq| seq.seq_id));
            let same = step.len() == handles.len()
                && step.iter().zip(&handles).all(|((_, known), given)| Arc::ptr_eq(known, given));
            if !same || (!step.is_empty() && scheduler.current().is_prefill != is_prefill) {
                return None;
            }
            Some(scheduler.postprocess_all(&token_ids))
        })?;
        match result {
            Some(result) => result.map_err(engine_error),
            None => Err(precondition("postprocess needs the sequences and is_prefill as schedule returned them")),
        }
    }

    /// Takes a sequence's blocks and puts it at the head of the waiting queue.
    fn preempt(&self, seq: &Bound<'_, PySequence>) -> PyResult<()> {
        let whereabouts = seq.get().whereabouts()?;
        let home = self.home(seq.py())?;
        let seq_id = home.id_of(whereabouts)?;
        let result = home.scheduler(seq.py(), |scheduler| scheduler.preempt_by_id(seq_id))?;
        result.map_err(engine_error)
    }

    /// The waiting queue: a copy, of the sequences themselves.
    #[getter]
    fn waiting<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let home = self.home(py)?;
        queue(py, home, home.scheduler(py, |scheduler| home.residents(scheduler.waiting().map(|seq| seq.seq_id)))?)
    }

    /// The running queue: a copy, of the sequences themselves.
    #[getter]
    fn running<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let home = self.home(py)?;
        queue(py, home, home.scheduler(py, |scheduler| home.residents(scheduler.running().map(|seq| seq.seq_id)))?)
    }

    /// The KV pool's books.
    #[getter]
    fn block_manager(&self, py: Python<'_>) -> PyResult<Py<PyBlockManager>> {
        if let Some(known) = self.block_manager.get() {
            return Ok(known.clone_ref(py));
        }
        let made = Py::new(py, PyBlockManager::of(py, self.home(py)?)?)?;
        Ok(self.block_manager.get_or_init(|| made).clone_ref(py))
    }

    /// The id that ends a sequence, -1 for none; a list where there are several.
    #[getter]
    fn eos<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let eos = self.home(py)?.scheduler(py, |scheduler| scheduler.eos().to_vec())?;
        Ok(match eos[..] {
            [] => (-1i32).into_pyobject(py)?.into_any(),
            [id] => id.into_pyobject(py)?.into_any(),
            _ => eos.into_pyobject(py)?.into_any(),
        })
    }

    #[setter]
    fn set_eos(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let eos = eos_ids(value)?;
        self.home(value.py())?.scheduler(value.py(), |scheduler| scheduler.set_eos(eos))
    }

    /// Sequences of one step at most.
    #[getter]
    fn max_num_seqs(&self, py: Python<'_>) -> PyResult<usize> {
        self.home(py)?.scheduler(py, |scheduler| scheduler.max_num_seqs())
    }

    #[setter]
    fn set_max_num_seqs(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let n = count(value, "max_num_seqs")?;
        let set = |scheduler: &mut Scheduler| scheduler.set_limits(scheduler.max_num_batched_tokens(), n);
        self.home(value.py())?.scheduler(value.py(), set)?.map_err(engine_error)
    }

    /// Tokens of one prefill step at most.
    #[getter]
    fn max_num_batched_tokens(&self, py: Python<'_>) -> PyResult<usize> {
        self.home(py)?.scheduler(py, |scheduler| scheduler.max_num_batched_tokens())
    }

    #[setter]
    fn set_max_num_batched_tokens(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let n = count(value, "max_num_batched_tokens")?;
        let set = |scheduler: &mut Scheduler| scheduler.set_limits(n, scheduler.max_num_seqs());
        self.home(value.py())?.scheduler(value.py(), set)?.map_err(engine_error)
    }
}

impl PyScheduler {
    /// The home of its sequences.
    fn home(&self, py: Python<'_>) -> PyResult<&Arc<Home>> {
        match &self.source {
            Source::Own(home) => Ok(home),
            Source::Engine(door) => door.open(py),
        }
    }
}

/// A queue as Python has it.
fn queue<'py>(py: Python<'py>, home: &Home, residents: Vec<Resident>) -> PyResult<Bound<'py, PyAny>> {
    let seqs = objects(py, home, residents)?;
    py.import("nanovllm.engine.scheduler")?.getattr("QueueSnapshot")?.call1((seqs,))
}

/// A scheduler with the settings that an object has as attributes: nano-vLLM's five, and `max_model_len` and
/// `scheduling_policy` where there are such.
fn scheduler(config: &Bound<'_, PyAny>) -> PyResult<Scheduler> {
    let number = |name: &str| count(&config.getattr(name)?, name);
    let max_model_len = match config.getattr_opt("max_model_len")? {
        Some(value) => count(&value, "max_model_len")?,
        None => i32::MAX as usize,
    };
    let policy = match config.getattr_opt("scheduling_policy")? {
        Some(value) if !value.is_none() => scheduling_policy(&value)?,
        _ => SchedulingPolicy::NanoVllm,
    };
    let num_blocks = config.getattr("num_kvcache_blocks")?;
    if num_blocks.eq(-1)? {
        let text = "num_kvcache_blocks must be known to a scheduler: set it, or let a ModelRunner fill it in, got -1";
        return Err(PyValueError::new_err(text));
    }
    let num_blocks = count(&num_blocks, "num_kvcache_blocks")?;
    let settings = EngineConfig {
        max_num_seqs: number("max_num_seqs")?,
        max_num_batched_tokens: number("max_num_batched_tokens")?,
        kvcache_block_size: number("kvcache_block_size")?,
        num_kvcache_blocks: i64::try_from(num_blocks).unwrap_or(i64::MAX),
        eos: eos_ids(&config.getattr("eos")?)?,
        max_model_len,
        policy,
        ..EngineConfig::default()
    };
    Scheduler::new(&settings, num_blocks).map_err(engine_error)
}

/// An id, several, or none: None, and any negative number as in nano-vLLM.
fn eos_ids(value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if value.is_none() {
        return Ok(Vec::new());
    }
    if value.is_instance_of::<PyInt>() || value.try_iter().is_err() {
        let id =
            value.extract::<i64>().map_err(|_| PyTypeError::new_err(format!("eos must be token ids, got {value}")))?;
        if id < 0 {
            return Ok(Vec::new());
        }
        return u32::try_from(id).map(|id| vec![id]).map_err(|e| PyValueError::new_err(format!("eos is {id}: {e}")));
    }
    ids_in_any_order(value)
}
