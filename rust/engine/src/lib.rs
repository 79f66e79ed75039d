//! Sequences, block manager, scheduler, model runner and the engine step, with nano-vLLM's semantics.
//!
//! The files carry nano-vLLM's names: [`Sequence`], [`BlockManager`], [`Scheduler`], [`ModelRunner`], [`LlmEngine`]. Under
//! [`SchedulingPolicy::NanoVllm`] every decision, block table and free-list order equals nano-vLLM's (commit bb823b3)
//! step by step, for every program nano-vLLM survives; where it dies there is a typed [`EngineError`] or a sequence
//! finished with [`FinishReason::Length`].
//!
//! The engine does not know tensors, devices, files or text. It sees a model as [`nanovllm_model::CausalLm`]: one virtual call a
//! step.

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod block_manager;
mod config;
mod errors;
mod fields;
mod free_list;
mod kv_pool;
mod limits;
mod llm_engine;
mod model_runner;
mod prepare;
mod sampling_params;
mod scheduler;
mod sequence;
mod sequence_state;
mod slab;

/// The memory a KV pool is sized by.
pub use nanovllm_backend::Memory;

pub use block_manager::{Block, BlockManager, compute_hash, hash_tokens};
pub use config::{EngineConfig, SchedulingPolicy};
pub use errors::EngineError;
pub use fields::FieldSource;
pub use kv_pool::num_kvcache_blocks;
pub use limits::RequestLimits;
pub use llm_engine::{EngineStats, FinishedOutput, LlmEngine, StepEvent, StepOutput};
pub use model_runner::{ModelRunner, graph_batch_size, graph_batch_sizes};
pub use prepare::StepInputs;
pub use sampling_params::{SamplingParams, SamplingParamsError};
pub use scheduler::{Schedule, Scheduler};
pub use sequence::{FinishReason, Sequence, SequenceStatus};
pub use sequence_state::{SequenceState, StateTokens};
