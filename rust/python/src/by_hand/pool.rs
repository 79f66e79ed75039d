//! The books of a KV pool, for Python's `BlockManager` and `Block`.

use std::sync::Arc;

use nanovllm_engine::{BlockManager, EngineError, Sequence};
use nanovllm_service::Exclusive;
use pyo3::prelude::*;

use crate::by_hand::handle::{PySequence, sync_block_size};
use crate::by_hand::home::{Home, Place};
use crate::errors::engine_error;
use crate::guarded::Turns;

/// Whose books.
#[derive(Clone)]
pub(crate) enum Pool {
    /// Those of a `BlockManager` that a program has made.
    Own(Arc<Exclusive<BlockManager>>),
    /// A scheduler's.
    Of(Arc<Home>),
}

impl Pool {
    /// Runs `work` on the books.
    pub(crate) fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut BlockManager) -> R + Send,
    ) -> PyResult<R> {
        match self {
            Self::Own(pool) => pool.peek(py, work),
            Self::Of(home) => home.scheduler(py, |scheduler| work(scheduler.block_manager_mut())),
        }
    }

    /// Runs `work` on the books and a sequence that is in its handle.
    pub(crate) fn with_own<R: Send>(
        &self,
        seq: &Bound<'_, PySequence>,
        method: &'static str,
        work: impl FnOnce(&mut BlockManager, &mut Sequence) -> Result<R, EngineError> + Send,
    ) -> PyResult<R> {
        sync_block_size(seq)?;
        let whereabouts = seq.get().whereabouts()?;
        let result = self.with(seq.py(), |pool| match &mut *whereabouts.lock() {
            Place::Handle(seq) => work(pool, seq),
            Place::Home(..) => {
                let got = "one whose blocks a scheduler manages".to_owned();
                Err(EngineError::Precondition { method, needs: "a sequence of the caller's", got })
            }
        })?;
        result.map_err(engine_error)
    }
}
