//! The devices a model runs on, by name.
//!
//! A device is a crate that implements [`nanovllm_backend::Backend`], a variant of [`AnyBackend`], a file here that
//! turns its options into the crate's own, and a [`DeviceRow`]. Whoever loads a model or binds layers goes through this
//! crate and names no device itself.
//!
//! ```
//! use nanovllm_devices::{Given, Options, names, open};
//!
//! let mut options = Options::default();
//! options.set("num_threads", Given::Number(1));
//! assert!(open("cpu", &options)?.memory().is_some());
//! assert!(names().any(|name| name == "cpu"));
//! assert!(open("abacus", &options).is_err());
//! # Ok::<(), nanovllm_devices::Error>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod any;
#[cfg(feature = "candle")]
mod candle;
mod cpu;
mod error;
mod host_memory;
mod options;
mod registry;

pub use any::{AnyBackend, Holder, Owned};
pub use cpu::instruction_sets;
pub use error::Error;
pub use host_memory::host_memory;
#[cfg(feature = "candle")]
pub use nanovllm_candle::CandleBackend;
pub use nanovllm_cpu::CpuBackend;
pub use options::{Given, OptionSpec, Options};
pub use registry::{DEVICES, DeviceRow, names, open, option_names};
