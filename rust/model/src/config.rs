//! Hyperparameters that models of all families have, read from config.json or from GGUF metadata and written as either.

mod base;
pub(crate) mod experts;
pub(crate) mod gguf;
pub(crate) mod json;
mod rope;
pub(crate) mod settings;
mod windows;
pub(crate) mod wrapper;

pub use self::base::BaseConfig;
pub use self::rope::{RopeConfig, RopeScaling};
pub(crate) use self::windows::Windows;
