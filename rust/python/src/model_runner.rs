//! `ModelRunner`: the model and its paged cache without a scheduler, for whoever wants logits: tests, perplexity.

use std::path::PathBuf;

use nanovllm_engine::device::{LoadOptions, Loaded};
use nanovllm_engine::{EngineConfig, EngineError, Memory};
use nanovllm_model::ModelInput;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

use crate::arguments::token_ids;
use crate::engine::check_signals;
use crate::errors::engine_error;
use crate::guarded::Guarded;
use crate::options::{kv_cache_dtype, load};

/// A loaded model with its KV cache.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct ModelRunner {
    inner: Guarded<nanovllm_engine::ModelRunner>,
    max_model_len: usize,
}

#[pymethods]
impl ModelRunner {
    #[new]
    #[pyo3(signature = (
        path, *, max_model_len = 4096, kvcache_block_size = 256, num_kvcache_blocks = -1, device = "cpu".to_owned(),
        num_threads = None, isa = None, activation_bits = 16, kv_cache_dtype = "auto"
    ), text_signature = "(path, *, max_model_len=4096, kvcache_block_size=256, num_kvcache_blocks=-1, device='cpu', \
        num_threads=None, isa=None, activation_bits=16, kv_cache_dtype='auto')")]
    #[allow(clippy::needless_pass_by_value)] // pyo3 extracts paths by value
    fn new(
        py: Python<'_>,
        path: PathBuf,
        max_model_len: usize,
        kvcache_block_size: usize,
        num_kvcache_blocks: i64,
        device: String,
        num_threads: Option<usize>,
        isa: Option<String>,
        activation_bits: u64,
        kv_cache_dtype: &str,
    ) -> PyResult<Self> {
        let mut config = EngineConfig {
            max_num_seqs: 1,
            max_model_len,
            kvcache_block_size,
            num_kvcache_blocks,
            kv_cache_dtype: self::kv_cache_dtype(kv_cache_dtype)?,
            ..EngineConfig::default()
        };
        config.validate().map_err(engine_error)?;
        let options = LoadOptions { device, num_threads, isa, activation_bits, max_model_len };
        let Loaded { model, config: model_config, .. } = load(py, &path, &options)?;
        config.max_model_len = max_model_len.min(model_config.max_position_embeddings);
        let runner =
            py.detach(|| nanovllm_engine::ModelRunner::new(model, &config, Memory::detect())).map_err(engine_error)?;
        Ok(Self { inner: Guarded::new(runner), max_model_len: config.max_model_len })
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
        let (logits, vocab_size) = self.inner.with(py, |runner| {
            self.check(runner, &ids)?;
            let vocab_size = runner.model().vocab_size();
            let mut logits = Vec::new();
            let wanted = ids.len().saturating_mul(vocab_size);
            logits
                .try_reserve_exact(wanted)
                .map_err(|_| PyMemoryError::new_err(format!("cannot allocate {wanted} float32 logits")))?;
            let spec = *runner.kv_cache_spec();
            let blocks = scattered_blocks(ids.len().div_ceil(spec.block_size), spec.num_blocks);
            let mut start = 0;
            for n in chunks {
                check_signals()?;
                let input = chunk_input(&ids, start..start + n, &blocks, spec.block_size);
                let mut signal = None;
                let result = runner.model_mut().logits(&input, &mut logits, &mut || {
                    signal = check_signals().err();
                    signal.is_some()
                });
                if let Err(error) = result {
                    return Err(signal.unwrap_or_else(|| engine_error(error.into())));
                }
                start += n;
            }
            Ok::<_, PyErr>((logits, vocab_size))
        })??;
        PyArray1::from_vec(py, logits).reshape([ids.len(), vocab_size])
    }
}

impl ModelRunner {
    /// What the engine checks when a request is added.
    fn check(&self, runner: &nanovllm_engine::ModelRunner, ids: &[u32]) -> PyResult<()> {
        let vocab_size = runner.model().vocab_size();
        if let Some((position, &token_id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size) {
            return Err(engine_error(EngineError::TokenOutOfRange { token_id, position, vocab_size }));
        }
        let spec = runner.kv_cache_spec();
        let limit = self.max_model_len.min(spec.num_blocks * spec.block_size);
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

/// The positions `range` of one sequence as a step.
fn chunk_input(ids: &[u32], range: std::ops::Range<usize>, blocks: &[i32], block_size: usize) -> ModelInput {
    let slot = |position: usize| blocks[position / block_size] * block_size as i32 + (position % block_size) as i32;
    ModelInput {
        is_prefill: range.start == 0 || range.len() > 1,
        input_ids: ids[range.clone()].to_vec(),
        positions: range.clone().map(|position| position as u32).collect(),
        cu_seqlens_q: vec![0, range.len() as u32],
        context_lens: vec![range.end as u32],
        slot_mapping: range.map(slot).collect(),
        block_tables: blocks.to_vec(),
        table_stride: blocks.len(),
    }
}
