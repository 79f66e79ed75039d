//! The backend contract on candle tensors.
//!
//! It runs wherever candle does and shares no kernel with the other devices, so it is both the portable path and, with every
//! weight widened to f32 ([`CandleOptions::oracle`]), the oracle the others are compared with. Nothing here reaches into a
//! tensor's storage: values enter and leave through [`upload`](nanovllm_backend::Backend::upload) and
//! [`download`](nanovllm_backend::Backend::download) alone, and the rest is candle's operations on the device the backend was made
//! for.
//!
//! Unlike on the `cpu` device, a row's result may depend in its last bits on the rows beside it: candle's products block by
//! the number of rows.

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod attention;
mod backend;
mod error;
mod kv_cache;
mod matrix;
mod memory;
mod rows;
mod store;
mod weight;

pub use backend::{CandleBackend, CandleOptions};
pub use kv_cache::KvCache;
pub use matrix::Matrix;
pub use weight::Weight;
