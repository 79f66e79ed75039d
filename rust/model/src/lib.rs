//! Layers, models, configuration and weight loading; generic over the backend.

mod causal_lm;
mod checkpoint;
mod config;
mod error;
mod layers;
mod model;
mod models;
mod slices;
mod weights;

pub use causal_lm::{CausalLm, ModelInput, StepError};
pub use checkpoint::{
    Checkpoint, GgufCheckpoint, SafeTensorInfo, SafeTensorsCheckpoint, SafeTensorsFiles, StoredTensor, gguf_tensor_name,
};
pub use config::{Architecture, ModelConfig, RopeConfig, RopeScaling};
pub use error::LoadError;
pub use model::load;
