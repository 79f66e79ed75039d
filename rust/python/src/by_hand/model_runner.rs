//! `ModelRunner`: a model and its paged cache, of its own or a running engine's, for programs that put steps together or
//! want logits, as tests and perplexity do.

use std::sync::Arc;

use nanovllm_engine::EngineError;
use nanovllm_model::ModelInput;
use nanovllm_service::Exclusive;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::arguments::token_ids;
use crate::by_hand::model_inputs::copies;
use crate::by_hand::step_arrays::StepArrays;
use crate::config::{Checkpoint, Loaded, Setup};
use crate::door::Door;
use crate::errors::{closed, engine_error};
use crate::guarded::Turns;
use crate::signals::Signals;

/// Whose model.
enum Runner {
    /// Loaded by hand; None once it was closed.
    Own(Box<Exclusive<Option<nanovllm_engine::ModelRunner>>>),
    /// A running engine's.
    Of(Arc<Door>),
}

/// A loaded model with its KV cache.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct ModelRunner {
    runner: Runner,
    #[pyo3(get)]
    num_kvcache_blocks: usize,
}

#[pymethods]
impl ModelRunner {
    #[new]
    #[pyo3(signature = (config, checkpoint = None))]
    fn new(py: Python<'_>, config: &Bound<'_, PyAny>, checkpoint: Option<&Bound<'_, Checkpoint>>) -> PyResult<Self> {
        let setup = Setup::read(config)?;
        let Loaded { model, memory, .. } = setup.load(py, checkpoint.map(Bound::get))?;
        let runner =
            py.detach(|| nanovllm_engine::ModelRunner::new(model, &setup.engine, memory)).map_err(engine_error)?;
        let num_kvcache_blocks = runner.kv_cache_spec().num_blocks;
        Ok(Self { runner: Runner::Own(Box::new(Exclusive::new("the model runner", Some(runner)))), num_kvcache_blocks })
    }

    /// Computes a step of these sequences and returns a token for each.
    fn run(&self, seqs: &Bound<'_, PyAny>, is_prefill: bool) -> PyResult<Vec<u32>> {
        let copies = copies(seqs, is_prefill)?;
        self.interruptible(seqs.py(), |runner, interrupted| runner.run_by_hand(&copies, is_prefill, interrupted))
    }

    /// The logits of each sequence's last row, float32 `[num_seqs, vocab_size]`, of a step given as nano-vLLM's arrays. In
    /// prefill `cu_seqlens_q` and `cu_seqlens_k` are offsets; in decode, `context_lens` are lengths.
    #[pyo3(signature = (
        input_ids, positions, is_prefill, *, cu_seqlens_q, cu_seqlens_k, slot_mapping, context_lens, block_tables
    ))]
    fn last_logits<'py>(
        &self,
        py: Python<'py>,
        input_ids: &Bound<'py, PyAny>,
        positions: &Bound<'py, PyAny>,
        is_prefill: bool,
        cu_seqlens_q: Option<Vec<u32>>,
        cu_seqlens_k: Option<Vec<u32>>,
        slot_mapping: Vec<i32>,
        context_lens: Option<Vec<u32>>,
        block_tables: Option<Vec<Vec<i32>>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let arrays = StepArrays { cu_seqlens_q, cu_seqlens_k, slot_mapping, context_lens, block_tables };
        let block_size = self.with(py, |runner| runner.kv_cache_spec().block_size)?;
        let input = arrays.input(token_ids(input_ids)?, token_ids(positions)?, is_prefill, block_size)?;
        let logits = self.interruptible(py, |runner, interrupted| runner.last_logits(&input, interrupted))?;
        let vocab_size = self.with(py, |runner| runner.model().vocab_size())?;
        PyArray1::from_vec(py, logits).reshape([input.num_seqs(), vocab_size])
    }

    /// Frees the model, unless it is a running engine's; every later call is refused.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Runner::Own(runner) = &self.runner {
            let runner = runner.with(py, Option::take)?;
            py.detach(|| drop(runner));
        }
        Ok(())
    }

    /// The logits of every position, float32 `[len(token_ids), vocab_size]`. The prompt runs through the paged cache in
    /// chunks of the given sizes (all at once without them; chunks of 1 decode), on blocks scattered over the pool.
    #[pyo3(signature = (token_ids, chunk_sizes = None))]
    fn logits<'py>(
        &self,
        py: Python<'py>,
        token_ids: &Bound<'py, PyAny>,
        chunk_sizes: Option<Vec<usize>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let ids = self::token_ids(token_ids)?;
        let chunks = chunk_sizes.unwrap_or_else(|| vec![ids.len()]);
        let total = chunks.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        if ids.is_empty() || chunks.contains(&0) || total != Some(ids.len()) {
            return Err(PyValueError::new_err(format!(
                "chunk_sizes must be positive and add up to the {} tokens of a prompt that is not empty",
                ids.len()
            )));
        }
        if let Runner::Of(..) = &self.runner {
            let text = "these logits need a model of their own: a running engine's cache is in use";
            return Err(PyRuntimeError::new_err(text));
        }
        let (logits, vocab_size) = self.with(py, |runner| {
            Self::check(runner, &ids)?;
            let vocab_size = runner.model().vocab_size();
            let mut logits = Vec::new();
            let wanted = ids.len().saturating_mul(vocab_size);
            logits
                .try_reserve_exact(wanted)
                .map_err(|_| PyMemoryError::new_err(format!("cannot allocate {wanted} float32 logits")))?;
            let spec = runner.kv_cache_spec();
            let (block_size, num_blocks) = (spec.block_size, spec.num_blocks);
            let blocks = scattered_blocks(ids.len().div_ceil(block_size), num_blocks);
            let (mut start, mut signals) = (0, Signals::default());
            for n in chunks {
                let input = chunk_input(&ids, start..start + n, &blocks, block_size);
                let rows: Vec<u32> = (0..n as u32).collect();
                let result = runner.model_mut().logits(&input, &rows, &mut logits, &mut || signals.interrupted());
                result.map_err(|error| signals.take().unwrap_or_else(|| engine_error(error.into())))?;
                start += n;
            }
            Ok::<_, PyErr>((logits, vocab_size))
        })??;
        PyArray1::from_vec(py, logits).reshape([ids.len(), vocab_size])
    }
}

impl ModelRunner {
    /// A running engine's model.
    pub(crate) fn of(py: Python<'_>, door: &Arc<Door>) -> PyResult<Self> {
        let num_kvcache_blocks = door
            .service()
            .engine()
            .with(py, |driver| driver.as_mut().map(|d| d.engine().model_runner().kv_cache_spec().num_blocks))?
            .ok_or_else(closed)?;
        Ok(Self { runner: Runner::Of(Arc::clone(door)), num_kvcache_blocks })
    }

    fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut nanovllm_engine::ModelRunner) -> R + Send,
    ) -> PyResult<R> {
        let done = match &self.runner {
            Runner::Own(runner) => runner.with(py, |runner| runner.as_mut().map(work))?,
            Runner::Of(door) => {
                let engine = door.service().engine();
                let done = engine
                    .with(py, |driver| driver.as_mut().map(|driver| driver.engine().model_runner_mut().map(work)));
                door.release_ended(); // requests that had been dropped have left the engine
                done?.transpose().map_err(engine_error)?
            }
        };
        done.ok_or_else(closed)
    }

    /// Runs `work` as [`with`](Self::with) does. Python's signal handlers run between slices, and what they raise ends the
    /// step.
    fn interruptible<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut nanovllm_engine::ModelRunner, &mut dyn FnMut() -> bool) -> Result<R, EngineError> + Send,
    ) -> PyResult<R> {
        let mut signals = Signals::default();
        let result = self.with(py, |runner| work(runner, &mut || signals.interrupted()))?;
        result.map_err(|error| signals.take().unwrap_or_else(|| engine_error(error)))
    }

    /// Checks what an engine checks when a request is added.
    fn check(runner: &nanovllm_engine::ModelRunner, ids: &[u32]) -> PyResult<()> {
        let vocab_size = runner.model().vocab_size();
        if let Some((position, &token_id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
            return Err(engine_error(EngineError::TokenOutOfRange { token_id, position, vocab_size }));
        }
        let spec = runner.kv_cache_spec();
        let limit = runner.max_model_len().min(spec.num_blocks * spec.block_size);
        if ids.len() > limit {
            return Err(PyValueError::new_err(format!("the prompt has {} tokens, the limit is {limit}", ids.len())));
        }
        Ok(())
    }
}

/// `needed` different blocks of a pool of `total`, far from each other and from their order: steps of about the golden
/// section, coprime to `total`.
fn scattered_blocks(needed: usize, total: usize) -> Vec<i32> {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let stride = (total * 618 / 1000..total).find(|&stride| gcd(stride, total) == 1).unwrap_or(1);
    (1..=needed).map(|i| (i * stride % total) as i32).collect()
}

/// A step that computes the positions `range` of one sequence.
fn chunk_input(ids: &[u32], range: std::ops::Range<usize>, blocks: &[i32], block_size: usize) -> ModelInput {
    let slot = |position: usize| blocks[position / block_size] * block_size as i32 + (position % block_size) as i32;
    ModelInput {
        input_ids: ids[range.clone()].to_vec(),
        positions: range.clone().map(|position| position as u32).collect(),
        cu_seqlens_q: vec![0, range.len() as u32],
        context_lens: vec![range.end as u32],
        slot_mapping: range.map(slot).collect(),
        block_tables: blocks.to_vec(),
        table_stride: blocks.len(),
    }
}
