//! Layers, models, configuration and weight loading; generic over the backend.

mod causal_lm;
mod checkpoint;
mod config;
pub mod decoder;
mod error;
pub mod layers;
mod model;
pub mod models;
mod parameter;
mod sharding;
mod slices;
#[cfg(test)]
mod testing;
mod weights;

pub use causal_lm::{CausalLm, ModelInput, StepError};
pub use checkpoint::{
    Checkpoint, ExportedTensor, GgufCheckpoint, SafeTensorInfo, SafeTensorsCheckpoint, SafeTensorsFiles, StoredTensor,
};
pub use config::{BaseConfig, ModelConfig, RopeConfig, RopeScaling};
pub use error::LoadError;
pub use model::load;
pub use models::registry::{Family, HuggingFaceName, ROWS as FAMILIES, Row as FamilyRow};
pub use parameter::{Parameter, ParameterError};
pub use sharding::{Layout, Shard, ShardError, TpRank, divide};
pub use slices::Slice;
