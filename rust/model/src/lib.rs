//! Models: configuration, files, layers and decoders, generic over the [`Backend`](nanovllm_backend::Backend) they run on.
//!
//! [`Checkpoint::open`] reads a Hugging Face directory or a GGUF file, [`load`] puts the model on a device, and the
//! engine sees it as [`CausalLm`]: one virtual call a step. A family of models is a file in `models/` and a row of
//! `models/registry.rs`.
//!
//! ```
//! use nanovllm_model::ModelConfig;
//!
//! let json = r#"{
//!     "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
//!     "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000, "max_position_embeddings": 512
//! }"#;
//! let config = ModelConfig::from_json(serde_json::from_str(json)?)?;
//! assert_eq!(config.family.row().gguf, "qwen3");
//! assert_eq!(config.base.kv_heads().size(), 32);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod causal_lm;
mod checkpoint;
mod config;
pub mod decoder;
mod error;
mod expert_budget;
pub mod layers;
mod model;
mod model_config;
pub mod models;
mod parameter;
mod sharding;
mod slices;
mod stored_tensor;
#[cfg(test)]
mod testing;
mod weights;

pub use causal_lm::{CausalLm, ModelInput, StepError};
pub use checkpoint::{
    Checkpoint, ExportedTensor, GgufCheckpoint, ModelPath, SafeTensorInfo, SafeTensorsCheckpoint, SafeTensorsFiles,
    TensorLayout,
};
pub use config::{BaseConfig, RopeConfig, RopeScaling};
pub use error::{LoadError, ParameterError};
pub use model::{LoadOptions, load};
pub use model_config::ModelConfig;
pub use models::registry::{FAMILIES, Family, FamilyRow, HuggingFaceName};
pub use parameter::Parameter;
pub use sharding::{Shard, ShardError, Sharding, TpRank, divide};
pub use slices::{SLICE_ROWS, Slice};
pub use stored_tensor::StoredTensor;
