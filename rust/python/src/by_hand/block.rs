//! `Block`: a view of one block of a pool, or a block that a program has made and no pool knows.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use crate::arguments::{count, token_ids, unsigned};
use crate::by_hand::pool::Pool;
use crate::errors::precondition;

/// Where the block is.
enum Source {
    /// In a pool, which alone changes it.
    Pool(Pool),
    /// In the object itself.
    Own(Mutex<nanovllm_engine::Block>),
}

/// A block of the KV cache. One of a pool is a view, whose attributes are what the pool says now.
#[pyclass(frozen, module = "nanovllm.engine.block_manager", name = "Block")]
pub(crate) struct PyBlock {
    #[pyo3(get)]
    block_id: usize,
    source: Source,
}

#[pymethods]
impl PyBlock {
    /// A block of no pool.
    #[new]
    fn new(block_id: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { block_id: count(block_id, "block_id")?, source: Source::Own(Mutex::default()) })
    }

    /// Block tables that hold it; 0 is free.
    #[getter]
    fn ref_count(&self, py: Python<'_>) -> PyResult<u32> {
        self.read(py, |block| block.ref_count)
    }

    /// Chained hash of its contents once it is full, else -1.
    #[getter]
    fn hash(&self, py: Python<'_>) -> PyResult<i128> {
        self.read(py, |block| block.hash.map_or(-1, i128::from))
    }

    /// The tokens the hash was computed from. A copy.
    #[getter]
    fn token_ids(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.read(py, |block| block.token_ids.clone())
    }

    /// Sets hash and tokens of a block made by hand.
    fn update(&self, hash: &Bound<'_, PyAny>, token_ids: &Bound<'_, PyAny>) -> PyResult<()> {
        let hash = if hash.eq(-1)? { None } else { Some(unsigned(hash, "hash")?) };
        let token_ids = self::token_ids(token_ids)?;
        self.write(|block| (block.hash, block.token_ids) = (hash, token_ids))
    }

    /// Makes a block made by hand a fresh one, used once.
    fn reset(&self) -> PyResult<()> {
        self.write(|block| *block = nanovllm_engine::Block { ref_count: 1, ..Default::default() })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (ref_count, hash) = self.read(py, |block| (block.ref_count, block.hash))?;
        let hash = hash.map_or("-1".to_owned(), |hash| hash.to_string());
        Ok(format!("<Block {}, ref_count {ref_count}, hash {hash}>", self.block_id))
    }
}

impl PyBlock {
    /// A block of a pool.
    pub(crate) fn of(block_id: usize, pool: Pool) -> Self {
        Self { block_id, source: Source::Pool(pool) }
    }

    fn read<R: Send>(&self, py: Python<'_>, look: impl FnOnce(&nanovllm_engine::Block) -> R + Send) -> PyResult<R> {
        match &self.source {
            Source::Pool(pool) => pool.with(py, |pool| look(&pool.blocks()[self.block_id])),
            Source::Own(block) => Ok(look(&block.lock().unwrap_or_else(PoisonError::into_inner))),
        }
    }

    fn write(&self, change: impl FnOnce(&mut nanovllm_engine::Block)) -> PyResult<()> {
        match &self.source {
            Source::Pool(_) => Err(precondition("a block of a pool is changed by its BlockManager alone")),
            Source::Own(block) => {
                change(&mut block.lock().unwrap_or_else(PoisonError::into_inner));
                Ok(())
            }
        }
    }
}
