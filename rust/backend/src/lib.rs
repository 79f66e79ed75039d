//! The contract between models and devices.
//!
//! A model is written once against [`Backend`], a trait of about a dozen layer-height operations (one for each nano-vLLM
//! layer, not a tensor algebra), and runs on every device that implements it. This crate holds the trait, the data that
//! crosses it and the error type. It does not know any device, any model or any file.

mod attention;
mod backend;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod error;
mod inspect;
mod kv_cache;
mod memory;
mod noise;
mod sample;
mod weight;

pub use attention::{AttentionOptions, HeadLayout, HeadNorm, HeadNorms, Rope, default_scale};
pub use backend::Backend;
pub use context::Context;
pub use error::{Error, Result};
pub use inspect::Inspect;
pub use kv_cache::{KvCacheSpec, KvHeads, LayerCache};
pub use memory::Memory;
pub use noise::NoiseStream;
pub use sample::SampleRow;
pub use weight::{DType, WeightPart};
