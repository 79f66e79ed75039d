//! A device that computes with candle tensors: the contract of `nanovllm_backend` on the crate `candle_core`.
//!
//! It runs wherever candle does and shares no kernel with the other devices, so it is both the portable path and, with
//! every weight widened to f32 ([`CandleOptions::oracle`]), the oracle the others are compared with. Nothing here
//! reaches into a tensor's storage: values enter and leave through [`upload`](nanovllm_backend::Backend::upload) and
//! [`download`](nanovllm_backend::Backend::download) alone, and the rest is candle's operations on the device the
//! backend was made for.
//!
//! Unlike on the `cpu` device, a row's result may depend in its last bits on the rows beside it: candle's products block by
//! the number of rows.
//!
//! ```
//! use nanovllm_backend::Backend;
//! use nanovllm_candle::{CandleBackend, CandleOptions};
//!
//! let backend = CandleBackend::new(CandleOptions { oracle: true })?;
//! let x = backend.upload(&[1.0, 2.0, 3.0, 4.0], 2, 2)?;
//! let mut out = backend.tensor(2, 2)?;
//! backend.gather_rows(&x, &[1, 0], &mut out);
//! assert_eq!(backend.download(&out), [3.0, 4.0, 1.0, 2.0]);
//! backend.synchronize()?; // reports the first operation that failed
//! # Ok::<(), nanovllm_backend::Error>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod attention;
mod backend;
mod error;
mod experts;
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
