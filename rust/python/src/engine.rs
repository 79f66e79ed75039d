//! `Engine`: nanovllm_engine's LlmEngine behind a lock. Every method releases the GIL before it waits for the lock, so
//! threads that share an engine take turns and never wait for each other crosswise (see [`crate::guarded`]).

use std::path::PathBuf;
use std::sync::Arc;

use nanovllm_engine::device::{LoadOptions, Loaded};
use nanovllm_engine::{EngineConfig, EngineError, FinishedOutput, LlmEngine};
use nanovllm_model::StepError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{sampling_params, token_ids, unsigned};
use crate::errors::engine_error;
use crate::home::{Home, Shared, closed};
use crate::model_runner::ModelRunner;
use crate::options::{kv_cache_dtype, load};
use crate::tokenizer::Tokenizer;

/// A finished sequence.
#[pyclass(frozen, get_all, module = "nanovllm._core")]
pub(crate) struct FinishedSequence {
    seq_id: u64,
    token_ids: Vec<u32>,
    finish_reason: &'static str,
    num_prompt_tokens: usize,
    num_cached_tokens: usize,
}

impl From<FinishedOutput> for FinishedSequence {
    fn from(output: FinishedOutput) -> Self {
        Self {
            seq_id: output.seq_id,
            token_ids: output.token_ids,
            finish_reason: output.finish_reason.as_str(),
            num_prompt_tokens: output.num_prompt_tokens,
            num_cached_tokens: output.num_cached_tokens,
        }
    }
}

/// A loaded model with its scheduler and KV cache. Any thread may call any method.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Engine {
    inner: Arc<Shared<Option<LlmEngine>>>,
    tokenizer: Py<Tokenizer>,
    description: String,
    notes: Vec<String>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        path, *, max_num_batched_tokens, max_num_seqs, max_model_len, gpu_memory_utilization, kvcache_block_size,
        num_kvcache_blocks, device, num_threads, isa, activation_bits, kv_cache_dtype, seed
    ))]
    #[allow(clippy::needless_pass_by_value)] // pyo3 extracts paths by value
    fn new(
        py: Python<'_>,
        path: PathBuf,
        max_num_batched_tokens: usize,
        max_num_seqs: usize,
        max_model_len: usize,
        gpu_memory_utilization: f64,
        kvcache_block_size: usize,
        num_kvcache_blocks: i64,
        device: String,
        num_threads: Option<usize>,
        isa: Option<String>,
        activation_bits: u64,
        kv_cache_dtype: &str,
        seed: u64,
    ) -> PyResult<Self> {
        let mut config = EngineConfig {
            max_num_batched_tokens,
            max_num_seqs,
            max_model_len,
            gpu_memory_utilization,
            eos: Vec::new(), // known once the tokenizer is
            kvcache_block_size,
            num_kvcache_blocks,
            kv_cache_dtype: self::kv_cache_dtype(kv_cache_dtype)?,
            seed,
            ..EngineConfig::default()
        };
        // Before the weights are read: a wrong option should not cost a load.
        config.validate().map_err(engine_error)?;
        let options = LoadOptions { device, num_threads, isa, activation_bits, max_model_len };
        let Loaded { model, tokenizer, config: model_config } = load(py, &path, &options)?;
        config.max_model_len = max_model_len.min(model_config.max_position_embeddings);
        config.eos = tokenizer.eos_token_ids().to_vec();
        let (description, notes) = (model.describe(), model.notes().to_vec());
        let inner = py.detach(|| LlmEngine::new(model, config)).map_err(engine_error)?;
        let tokenizer = Py::new(py, Tokenizer::new(Arc::new(tokenizer)))?;
        Ok(Self { inner: Shared::new(Some(inner)), tokenizer, description, notes })
    }

    /// The model's tokenizer.
    #[getter]
    fn tokenizer(&self, py: Python<'_>) -> Py<Tokenizer> {
        self.tokenizer.clone_ref(py)
    }

    /// Architecture, device, instruction set and threads, for logs.
    #[getter]
    fn description(&self) -> &str {
        &self.description
    }

    /// What a user should know of how the weights were loaded, one line each.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// The model runner, for steps by hand.
    #[getter]
    fn model_runner(&self, py: Python<'_>) -> PyResult<ModelRunner> {
        ModelRunner::of(py, &self.inner)
    }

    /// Queues a prompt under an id that no queued sequence has.
    #[pyo3(signature = (seq_id, token_ids, temperature, max_tokens, ignore_eos, seed))]
    #[allow(clippy::needless_pass_by_value)] // pyo3 hands optional arguments over by value
    fn add_request(
        &self,
        py: Python<'_>,
        seq_id: &Bound<'_, PyAny>,
        token_ids: &Bound<'_, PyAny>,
        temperature: &Bound<'_, PyAny>,
        max_tokens: &Bound<'_, PyAny>,
        ignore_eos: &Bound<'_, PyAny>,
        seed: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let seq_id = unsigned(seq_id, "Sequence.counter's next id")?;
        let token_ids = self::token_ids(token_ids)?;
        let params = sampling_params(temperature, max_tokens, ignore_eos, seed.as_ref())?;
        self.with(py, |engine| engine.add_request_with_id(seq_id, token_ids, params))?.map_err(engine_error)
    }

    /// Runs one step. What finished goes into `finished` by id, before Python's signal handlers can run again; returns how many
    /// that were, and the number of prompt tokens computed or minus the number of tokens decoded.
    /// Python's signal handlers run between slices; what they raise ends the step, which is rolled back.
    fn step(&self, py: Python<'_>, finished: &Bound<'_, PyDict>) -> PyResult<(usize, i64)> {
        let mut signal = None;
        let (result, _handles) = self.with(py, |engine| {
            let mut handles = Vec::new();
            let interrupted = &mut || {
                signal = check_signals().err();
                signal.is_some()
            };
            let result = engine.step_with(interrupted, &mut |seq| handles.extend(self.inner.give_back(seq)));
            (result, handles)
        })?;
        match (result, signal) {
            (Err(EngineError::Step(StepError::Interrupted)), Some(raised)) => Err(raised),
            (Err(error), _) => Err(engine_error(error)),
            (Ok(step), _) => {
                let count = step.outputs.len();
                for output in step.outputs {
                    let output = FinishedSequence::from(output);
                    finished.set_item(output.seq_id, output)?;
                }
                Ok((count, step.num_tokens))
            }
        }
    }

    /// Whether no sequence waits, runs or is finished but not returned.
    fn is_finished(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |engine| engine.is_finished())
    }

    /// Drops a sequence and frees its cache; False when there is none of that id.
    fn abort(&self, py: Python<'_>, seq_id: u64) -> PyResult<bool> {
        let (found, _handles) = self.with(py, |engine| {
            let seq = engine.abort(seq_id);
            (seq.is_some(), seq.and_then(|seq| self.inner.give_back(seq)))
        })?;
        Ok(found)
    }

    /// Frees the model and its cache; every later call is refused. Sequences that are queued go back to their handles.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let closed = self.inner.guarded().with(py, |engine| {
            let handles = engine.as_mut().map(|engine| self.inner.give_all_back(engine.scheduler_mut()));
            (engine.take(), handles)
        })?;
        py.detach(|| drop(closed.0));
        Ok(())
    }

    /// Counters since the engine was made, and the state of queues and KV cache.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.with(py, |engine| engine.stats())?;
        let dict = PyDict::new(py);
        dict.set_item("num_requests", stats.requests)?;
        dict.set_item("num_steps", stats.steps)?;
        dict.set_item("num_prefilled_tokens", stats.prefilled_tokens)?;
        dict.set_item("num_cached_tokens", stats.cached_tokens)?;
        dict.set_item("num_generated_tokens", stats.generated_tokens)?;
        dict.set_item("num_preemptions", stats.preemptions)?;
        dict.set_item("num_waiting", stats.num_waiting)?;
        dict.set_item("num_running", stats.num_running)?;
        dict.set_item("num_free_blocks", stats.free_blocks)?;
        dict.set_item("num_kvcache_blocks", stats.total_blocks)?;
        Ok(dict)
    }
}

impl Engine {
    /// The engine's scheduler, for those who look into it.
    pub(crate) fn home(&self) -> Home {
        self.inner.clone()
    }

    fn with<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut LlmEngine) -> R + Send) -> PyResult<R> {
        self.inner.guarded().with(py, |engine| engine.as_mut().map(work))?.ok_or_else(closed)
    }
}

/// Runs Python's signal handlers; in another thread than the main one it does nothing. What they raise is the error.
#[allow(clippy::redundant_closure_for_method_calls)] // the method itself is not general enough over lifetimes
pub(crate) fn check_signals() -> PyResult<()> {
    Python::attach(|py| py.check_signals())
}
