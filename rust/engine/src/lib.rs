//! Sequences, block manager, scheduler, model runner and the engine step, with nano-vLLM's semantics.
//!
//! The files carry nano-vLLM's names: [`Sequence`], [`BlockManager`], [`Scheduler`], [`ModelRunner`], [`LlmEngine`]. Under
//! [`SchedulingPolicy::NanoVllm`] every decision, block table and free-list order equals nano-vLLM's (commit bb823b3)
//! step by step, for every program nano-vLLM survives; where it dies there is a typed [`EngineError`] or a sequence
//! finished with [`FinishReason::Length`].
//!
//! The engine does not know tensors, devices, files or text. It sees a model as [`nanovllm_model::CausalLm`]: one virtual
//! call a step.
//!
//! ```
//! # use nanovllm_backend::{BlockCopy, DType, Error, KvCacheSpec, SampleRow, Sampled};
//! # use nanovllm_model::{CausalLm, ModelInput, StepError};
//! use nanovllm_engine::{EngineConfig, LlmEngine, SamplingParams};
//!
//! /// A model that can only count: after each token comes the next number.
//! struct Counter;
//!
//! impl CausalLm for Counter {
//!     fn step(
//!         &mut self,
//!         input: &ModelInput,
//!         rows: &[u32],
//!         _: &[SampleRow],
//!         _: &mut dyn FnMut() -> bool,
//!     ) -> Result<Vec<Sampled>, StepError> {
//!         Ok(rows.iter().map(|&row| (input.input_ids[row as usize] + 1).into()).collect())
//!     }
//! #   fn vocab_size(&self) -> usize { 100 }
//! #   fn hidden_size(&self) -> usize { 1 }
//! #   fn max_model_len(&self) -> usize { 100 }
//! #   fn describe(&self) -> String { "a counter".to_owned() }
//! #   fn kv_cache_spec(&self, num_blocks: usize, block_size: usize, _: Option<DType>) -> KvCacheSpec {
//! #       KvCacheSpec { num_blocks, block_size, dtype: DType::F32, layers: Vec::new() }
//! #   }
//! #   fn allocate_kv_cache(&mut self, _: &KvCacheSpec) -> Result<(), Error> { Ok(()) }
//! #   fn copy_blocks(&mut self, _: &[BlockCopy]) -> Result<(), Error> { Ok(()) }
//! #   fn logits(
//! #       &mut self, _: &ModelInput, _: &[u32], _: &mut Vec<f32>, _: &mut dyn FnMut() -> bool,
//! #   ) -> Result<(), StepError> { Ok(()) }
//! #   fn hidden_states(
//! #       &mut self, _: &ModelInput, _: &[u32], _: &mut dyn FnMut(&[f32]), _: &mut dyn FnMut() -> bool,
//! #   ) -> Result<(), StepError> { Ok(()) }
//! }
//!
//! let config = EngineConfig { num_kvcache_blocks: 8, eos: vec![5], ..EngineConfig::default() };
//! let mut engine = LlmEngine::new(Box::new(Counter), config, None)?;
//! let seq_id = engine.add_request(vec![1, 2], SamplingParams::default())?;
//! while !engine.is_finished() {
//!     for output in engine.step(&mut || false)?.finished() {
//!         assert_eq!((output.seq_id, output.token_ids), (seq_id, vec![3, 4, 5]));
//!     }
//! }
//! # Ok::<(), nanovllm_engine::EngineError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod block_hash;
mod block_manager;
mod by_hand;
mod check_input;
mod config;
mod errors;
mod fields;
mod free_list;
mod kv_pool;
mod limits;
mod llm_engine;
mod model_runner;
mod pace;
mod pooling;
mod prepare;
mod processors;
mod sampling_params;
mod scheduler;
mod sequence;
mod slab;

/// The memory a KV pool is sized by, and what is told of tokens.
pub use nanovllm_backend::{Memory, TokenLogprobs};

pub use block_hash::{compute_hash, hash_tokens};
pub use block_manager::{Block, BlockManager};
pub use config::{EngineConfig, SchedulingPolicy};
pub use errors::{EngineError, SamplingParamsError};
pub use fields::FieldSource;
pub use kv_pool::num_kvcache_blocks;
pub use limits::RequestLimits;
pub use llm_engine::{EngineStats, FinishedOutput, LlmEngine, NewRequest, StepEvent, StepOutput};
pub use model_runner::ModelRunner;
pub use pooling::{Pooling, PoolingKind};
pub use prepare::StepInputs;
pub use sampling_params::SamplingParams;
pub use scheduler::{Schedule, Scheduler};
pub use sequence::{FinishReason, Sequence, SequenceStatus};

pub use by_hand::graphs::{graph_batch_size, graph_batch_sizes};
pub use by_hand::sequence::{SequenceState, StateTokens};
