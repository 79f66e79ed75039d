//! Runs the steps that the scheduler decides on the model.

use crate::check_input::{InputLimits, check_input};
use crate::config::EngineConfig;
use crate::errors::EngineError;
use crate::kv_pool::num_kvcache_blocks;
use crate::prepare::StepInputs;
use crate::scheduler::Schedule;
use crate::sequence::Sequence;
use nanovllm_backend::{KvCacheSpec, Memory, SampleRow, Sampled};
use nanovllm_model::CausalLm;

/// Owns the model, its KV cache and the buffers of a step.
pub struct ModelRunner {
    pub(crate) model: Box<dyn CausalLm>,
    spec: KvCacheSpec,
    max_model_len: usize,
    pub(crate) inputs: StepInputs,
    /// The slots of a step while it is checked; kept so that steps need not allocate it.
    pub(crate) slots: Vec<i32>,
}

impl ModelRunner {
    /// Takes the model and allocates its KV cache: `config.num_kvcache_blocks` blocks, or as many as `memory` allows.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a field out of range; those of [`num_kvcache_blocks`]; [`EngineError::Backend`] when the
    /// device cannot allocate the cache.
    pub fn new(
        mut model: Box<dyn CausalLm>,
        config: &EngineConfig,
        memory: Option<Memory>,
    ) -> Result<Self, EngineError> {
        let max_model_len = config.max_model_len.min(model.max_model_len());
        let config = &EngineConfig { max_model_len, ..config.clone() };
        config.validate()?;
        let (block_size, dtype) = (config.kvcache_block_size, config.kv_cache_dtype);
        let block_bytes = model.kv_cache_spec(1, block_size, dtype).block_bytes();
        let num_blocks = num_kvcache_blocks(config, block_bytes, memory)?;
        let spec = model.kv_cache_spec(num_blocks, block_size, dtype);
        model.allocate_kv_cache(&spec)?;
        Ok(Self { model, spec, max_model_len, inputs: StepInputs::default(), slots: Vec::new() })
    }

    /// Computes the scheduled rows and returns, sequence after sequence, what was asked of the rows of its prompt, and a token if it
    /// samples.
    ///
    /// # Errors
    /// [`EngineError::Step`] when the step was interrupted or the device failed; [`EngineError::TokenCount`] and
    /// [`EngineError::BadToken`] for a model that breaks its contract; [`EngineError::Precondition`] for sequences that are
    /// not a scheduler's.
    pub(crate) fn run<'a>(
        &mut self,
        seqs: impl Iterator<Item = &'a Sequence> + Clone,
        schedule: Schedule,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Sampled>, EngineError> {
        if schedule.is_prefill {
            self.inputs.prepare_prefill(seqs.clone().filter(|seq| seq.num_scheduled_tokens > 0));
        } else {
            self.inputs.prepare_decode(seqs.clone());
        }
        self.check_prepared()?;
        let sample_rows = self.inputs.prepare_sample(seqs);
        self.compute(sample_rows, interrupted)
    }

    /// Lays out a step in which sequences are embedded.
    pub(crate) fn prepare_pooling<'a>(&mut self, seqs: impl Iterator<Item = &'a Sequence> + Clone) {
        self.inputs.prepare_prefill(seqs.clone());
        self.inputs.prepare_pooling(seqs);
    }

    /// Computes the step that was laid out and hands `take` the hidden states that embeddings are made of, one after another.
    ///
    /// # Errors
    /// [`EngineError::Step`] when the step was interrupted or the device failed; [`EngineError::Precondition`] for sequences
    /// that are not a scheduler's.
    pub(crate) fn run_pooling(
        &mut self,
        take: &mut dyn FnMut(&[f32]),
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), EngineError> {
        self.check_prepared()?;
        let width = self.model.hidden_size().max(1);
        let StepInputs { input, rows, .. } = &self.inputs;
        let mut take_rows = |rows: &[f32]| rows.chunks_exact(width).for_each(&mut *take);
        Ok(self.model.hidden_states(input, rows, &mut take_rows, interrupted)?)
    }

    /// Checks that the device can be given the step that was laid out: the scheduler's are as they should be, but a program
    /// may have had it by hand before.
    pub(crate) fn check_prepared(&mut self) -> Result<(), EngineError> {
        check_input(&self.inputs.input, &self.input_limits(), &mut self.slots)
    }

    pub(crate) fn input_limits(&self) -> InputLimits {
        let &KvCacheSpec { num_blocks, block_size, .. } = &self.spec;
        let (vocab_size, max_model_len) = (self.model.vocab_size(), self.max_model_len);
        InputLimits { vocab_size, max_model_len, num_blocks, block_size }
    }

    /// Computes the step that was laid out and checked, and checks that the model chose a token of its vocabulary for each row that
    /// samples.
    pub(crate) fn compute(
        &mut self,
        sample_rows: Vec<SampleRow<'_>>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Sampled>, EngineError> {
        let StepInputs { input, rows, .. } = &self.inputs;
        let sampled = self.model.step(input, rows, &sample_rows, interrupted);
        let expected = rows.len();
        self.inputs.keep_room(sample_rows);
        let sampled = sampled?;
        if sampled.len() != expected {
            return Err(EngineError::TokenCount { expected, got: sampled.len() });
        }
        let vocab_size = self.model.vocab_size();
        match sampled.iter().find(|sampled| sampled.token as usize >= vocab_size) {
            Some(&Sampled { token: token_id, .. }) => Err(EngineError::BadToken { token_id, vocab_size }),
            None => Ok(sampled),
        }
    }

    /// The model.
    pub fn model(&self) -> &dyn CausalLm {
        self.model.as_ref()
    }

    /// Tokens of the longest sequence it computes: the configuration's limit, or the model's where that is lower.
    pub fn max_model_len(&self) -> usize {
        self.max_model_len
    }

    /// The number and size of the KV cache's blocks, and what each layer keeps in them.
    pub fn kv_cache_spec(&self) -> &KvCacheSpec {
        &self.spec
    }
}
