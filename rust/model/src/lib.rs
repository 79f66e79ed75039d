//! Layers, models, configuration and weight loading; generic over the backend.

mod causal_lm;

pub use causal_lm::{CausalLm, ModelInput, StepError};
