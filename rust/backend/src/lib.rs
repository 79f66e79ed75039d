//! The contract between models and devices.
//!
//! A model is written once against [`Backend`], a trait of about a dozen operations as large as a layer (one for each
//! nano-vLLM layer, not a tensor algebra), and runs on every device that implements it. This crate holds the trait, the
//! data that crosses it and the error type. It knows no device, no model and no file. A new device implements
//! [`Backend`] and [`Inspect`] and runs the suite in `conformance` (a cargo feature).
//!
//! ```
//! use nanovllm_backend::{DType, KvCacheSpec, KvHeads, LayerCache, SampleRow};
//!
//! // Two layers, the second of which reads what the first stores: a block holds the keys and values of 16 tokens.
//! let heads = KvHeads { num_kv_heads: 2, head_dim: 64 };
//! let layers = vec![LayerCache::Full(heads), LayerCache::Shared(0)];
//! let spec = KvCacheSpec { num_blocks: 100, block_size: 16, dtype: DType::Bf16, layers };
//! spec.check()?;
//! assert_eq!(spec.block_bytes(), 2 * 16 * (2 * 64) * 2);
//!
//! // A draw depends on the request's stream, the position and the logits alone.
//! let row = SampleRow::drawn(0.8, 42, 7);
//! assert_eq!(row.choose(&mut [0.1, 2.0, 0.3]), row.choose(&mut [0.1, 2.0, 0.3]));
//! # Ok::<(), nanovllm_backend::Error>(())
//! ```

mod attention;
mod backend;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod error;
mod experts;
mod inspect;
mod kv_cache;
mod logprobs;
mod memory;
mod noise;
mod penalties;
mod rows;
mod sample;
mod truncation;
mod weight;

pub use attention::{AttentionOptions, HeadLayout, HeadNorm, HeadNorms, Rope, default_scale};
pub use backend::Backend;
pub use context::Context;
pub use error::{Error, Result};
pub use experts::{ExpertRoom, Experts, Route, Routing};
pub use inspect::Inspect;
pub use kv_cache::{BlockCopy, KvCacheSpec, KvHeads, LayerCache};
pub use logprobs::{LogSum, TokenLogprobs};
pub use memory::Memory;
pub use noise::NoiseStream;
pub use penalties::Penalties;
pub use rows::{Activation, Scale};
pub use sample::{SampleRow, Sampled};
pub use truncation::{Truncation, rounded, weight, weight_terms};
pub use weight::{DType, FilePart, WeightPart};
