//! The service: one loop for all callers of an engine.
//!
//! Callers hand requests in and drop them from any thread. After each step its events are posted into the mailboxes of
//! those who asked. A caller that waits for mail drives the engine meanwhile if nobody else does, or sleeps until its bell
//! rings; a thread of its own can drive too ([`Service::drive`]).
//!
//! Locks are taken in one order: the engine's turn, then the post, under which nothing waits and no foreign code runs.
//!
//! ```
//! # use nanovllm_backend::{BlockCopy, DType, Error, KvCacheSpec, SampleRow, Sampled};
//! # use nanovllm_engine::{EngineConfig, LlmEngine, SamplingParams};
//! # use nanovllm_model::{CausalLm, ModelInput, StepError};
//! # struct Counter;
//! # impl CausalLm for Counter {
//! #   fn step(
//! #       &mut self, input: &ModelInput, rows: &[u32], _: &[SampleRow], _: &mut dyn FnMut() -> bool,
//! #   ) -> Result<Vec<Sampled>, StepError> {
//! #       Ok(rows.iter().map(|&row| (input.input_ids[row as usize] + 1).into()).collect())
//! #   }
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
//! # }
//! # let config = EngineConfig { num_kvcache_blocks: 8, eos: vec![5], ..EngineConfig::default() };
//! # let engine = LlmEngine::new(Box::new(Counter), config, None)?;
//! use nanovllm_service::{Event, Request, Service};
//! use std::time::{Duration, Instant};
//!
//! // The engine's model can only count: after each token comes the next number, up to 5.
//! let service = Service::new(engine, None);
//! let params = SamplingParams::default();
//! let mut call = service.submit(vec![Request::new(0, vec![1, 2], params)])?;
//! while call.pending() > 0 {
//!     for event in call.advance(Instant::now() + Duration::from_secs(1), &mut || false)?.events {
//!         assert!(matches!(event, Event::Finished { output, .. } if output.token_ids == [3, 4, 5]));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod bad_words;
mod call;
mod driver;
mod error;
mod exclusive;
mod hub;
mod metrics;
mod output_options;
mod post;
mod request;
mod service;
mod text;

pub use bad_words::bad_word_tokens;
pub use call::Call;
pub use driver::{Driver, Pumped, Sink};
pub use error::ServiceError;
pub use exclusive::{Exclusive, Refusal, Turn};
pub use hub::Hub;
pub use metrics::{BOUNDS, Endings, Histogram, Metrics};
pub use output_options::OutputOptions;
pub use post::Computed;
pub use request::{Event, Request, Timing, Watch};
pub use service::{Progress, Service};
pub use text::TextOptions;
