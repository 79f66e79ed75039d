//! `BlockManager`: the books of a KV pool, of its own or a scheduler's.

use std::sync::Arc;

use nanovllm_engine::{BlockManager, Sequence, hash_tokens};
use nanovllm_service::Exclusive;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet, PyType};

use crate::arguments::{count, token_error, unsigned};
use crate::by_hand::block::PyBlock;
use crate::by_hand::handle::{PySequence, sync_block_size};
use crate::by_hand::home::{Home, Place};
use crate::by_hand::pool::Pool;
use crate::errors::engine_error;

/// Allocates blocks to sequences, sharing those whose prefix is already computed.
///
/// Sequences in a scheduler keep theirs: `allocate`, `deallocate`, `may_append` and `hash_blocks` are for sequences that the
/// caller looks after. Attributes are copies, and a block is a view.
#[pyclass(frozen, subclass, module = "nanovllm.engine.block_manager", name = "BlockManager")]
pub(crate) struct PyBlockManager {
    pool: Pool,
    #[pyo3(get)]
    block_size: usize,
    num_blocks: usize,
}

impl PyBlockManager {
    /// The books of a scheduler.
    pub(crate) fn of(py: Python<'_>, home: &Arc<Home>) -> PyResult<Self> {
        let (block_size, num_blocks) = home.scheduler(py, |scheduler| {
            (scheduler.block_manager().block_size(), scheduler.block_manager().num_blocks())
        })?;
        Ok(Self { pool: Pool::Of(home.clone()), block_size, num_blocks })
    }
}

#[pymethods]
impl PyBlockManager {
    #[new]
    #[pyo3(signature = (num_blocks, block_size))]
    fn new(num_blocks: &Bound<'_, PyAny>, block_size: &Bound<'_, PyAny>) -> PyResult<Self> {
        let num_blocks = count(num_blocks, "num_blocks")?;
        let block_size = count(block_size, "block_size")?;
        if block_size < 2 {
            return Err(PyValueError::new_err(format!("block_size must be at least 2, got {block_size}")));
        }
        let pool = BlockManager::new(num_blocks, block_size).map_err(engine_error)?;
        Ok(Self { pool: Pool::Own(Arc::new(Exclusive::new("the block manager", pool))), block_size, num_blocks })
    }

    /// For subclasses to call: the pool is made by `__new__`.
    #[allow(clippy::unused_self)] // a method of Python's
    fn __init__(&self, num_blocks: &Bound<'_, PyAny>, block_size: &Bound<'_, PyAny>) {
        let _ = (num_blocks, block_size);
    }

    /// xxh64 of the prefix's hash, unless that is -1, and the token ids.
    #[classmethod]
    #[pyo3(signature = (token_ids, prefix = None), text_signature = "($cls, token_ids, prefix=-1)")]
    #[allow(clippy::needless_pass_by_value)] // pyo3 hands optional arguments over by value
    fn compute_hash(
        _cls: &Bound<'_, PyType>,
        token_ids: &Bound<'_, PyAny>,
        prefix: Option<Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let prefix = match prefix {
            None => None,
            Some(prefix) if prefix.eq(-1)? => None,
            Some(prefix) => Some(unsigned(&prefix, "prefix")?),
        };
        let mut ids = Vec::with_capacity(token_ids.len().unwrap_or(0).min(1 << 20));
        for (at, item) in token_ids.try_iter()?.enumerate() {
            let item = item?;
            let id: PyResult<i64> = item.extract();
            ids.push(id.map_err(|e| token_error(&item, e, at))?);
        }
        Ok(hash_tokens(ids, prefix))
    }

    /// How many leading blocks the prefix cache has, or -1 if the pool cannot take the sequence now.
    fn can_allocate(&self, seq: &Bound<'_, PySequence>) -> PyResult<i64> {
        sync_block_size(seq)?;
        let whereabouts = seq.get().whereabouts()?;
        let known = self.pool.with(seq.py(), |pool| match &mut *whereabouts.lock() {
            Place::Handle(seq) => pool.can_allocate_checked(seq).map(Some),
            Place::Home(..) => Ok(None),
        })?;
        let num_cached_blocks = if let Some(known) = known.map_err(engine_error)? {
            known
        } else {
            let mut copy = seq.get().read(seq.py(), Sequence::clone)?;
            let found = self.pool.with(seq.py(), |pool| pool.can_allocate_checked(&mut copy))?;
            found.map_err(engine_error)?
        };
        Ok(num_cached_blocks.map_or(-1, |n| n as i64))
    }

    /// Gives the sequence its blocks, the first `num_cached_blocks` from the prefix cache.
    fn allocate(&self, seq: &Bound<'_, PySequence>, num_cached_blocks: &Bound<'_, PyAny>) -> PyResult<()> {
        let num_cached_blocks = count(num_cached_blocks, "num_cached_blocks")?;
        self.pool.with_own(seq, "allocate", |pool, seq| pool.allocate_checked(seq, num_cached_blocks))
    }

    /// Takes the sequence's blocks back, the last one first.
    fn deallocate(&self, seq: &Bound<'_, PySequence>) -> PyResult<()> {
        self.pool.with_own(seq, "deallocate", BlockManager::deallocate_checked)
    }

    /// Whether the pool has the block that the sequence's newest token may need.
    fn can_append(&self, seq: &Bound<'_, PySequence>) -> PyResult<bool> {
        sync_block_size(seq)?;
        let copy = seq.get().read(seq.py(), |seq| seq.copy_for_step(false))?;
        let can = self.pool.with(seq.py(), |pool| pool.can_append_checked(&copy))?;
        can.map_err(engine_error)
    }

    /// Gives the sequence another block if its newest token opens one.
    fn may_append(&self, seq: &Bound<'_, PySequence>) -> PyResult<()> {
        self.pool.with_own(seq, "may_append", BlockManager::may_append_checked)
    }

    /// Enters the blocks that the scheduled tokens fill into the prefix cache.
    fn hash_blocks(&self, seq: &Bound<'_, PySequence>) -> PyResult<()> {
        self.pool.with_own(seq, "hash_blocks", |pool, seq| pool.hash_blocks_checked(seq))
    }

    /// Every block, by id.
    #[getter]
    fn blocks(&self) -> Vec<PyBlock> {
        let view = |block_id| PyBlock::of(block_id, self.pool.clone());
        (0..self.num_blocks).map(view).collect()
    }

    /// The prefix cache: hash to block id. A copy.
    #[getter]
    fn hash_to_block_id<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let entries: Vec<_> =
            self.pool.with(py, |pool| pool.hash_to_block_id().iter().map(|(&h, &id)| (h, id)).collect())?;
        let dict = PyDict::new(py);
        for (hash, block_id) in entries {
            dict.set_item(hash, block_id)?;
        }
        Ok(dict)
    }

    /// Ids of the free blocks, the next to be handed out first. A copy.
    #[getter]
    fn free_block_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let ids: Vec<u32> = self.pool.with(py, |pool| pool.free_block_ids().collect())?;
        py.import("collections")?.getattr("deque")?.call1((ids,))
    }

    /// Ids of the blocks in use. A copy.
    #[getter]
    fn used_block_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        let ids: Vec<u32> = self.pool.with(py, |pool| pool.used_block_ids().collect())?;
        PySet::new(py, ids)
    }
}
