//! Layers, models, configuration and weight loading; generic over the backend.

mod causal_lm;
mod checkpoint;
mod config;
mod error;
pub mod layers;
mod model;
pub mod models;
mod parameter;
mod sharding;
mod slices;
mod weights;

pub use causal_lm::{CausalLm, ModelInput, StepError};
pub use checkpoint::{
    Checkpoint, GgufCheckpoint, SafeTensorInfo, SafeTensorsCheckpoint, SafeTensorsFiles, StoredTensor, gguf_tensor_name,
};
pub use config::{Architecture, ModelConfig, RopeConfig, RopeScaling};
pub use error::LoadError;
pub use model::load;
pub use parameter::{Parameter, ParameterError};
pub use sharding::{Layout, Shard, ShardError, TpRank, divide};
