//! Layers, models, configuration and weight loading; generic over the backend.

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod causal_lm;
mod checkpoint;
mod config;
pub mod decoder;
mod error;
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
    Checkpoint, ExportedTensor, GgufCheckpoint, SafeTensorInfo, SafeTensorsCheckpoint, SafeTensorsFiles,
};
pub use config::{BaseConfig, RopeConfig, RopeScaling};
pub use error::{LoadError, ParameterError};
pub use model::load;
pub use model_config::ModelConfig;
pub use models::registry::{FAMILIES, Family, FamilyRow, HuggingFaceName};
pub use parameter::Parameter;
pub use sharding::{Shard, ShardError, Sharding, TpRank, divide};
pub use slices::Slice;
pub use stored_tensor::StoredTensor;
