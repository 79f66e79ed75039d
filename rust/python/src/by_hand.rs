//! Stepping by hand: nano-vLLM's objects for programs that call them one by one, as parity tests do, instead of
//! [`Engine`](crate::engine::Engine).
//!
//! `Sequence`, `BlockManager`, `Scheduler` and `ModelRunner` take a step apart; [`home`] says where sequences live
//! meanwhile. [`layers`] and [`models`] compute single modules on arrays of the caller's. A request that is added to an
//! engine and answered by it goes through nothing in this folder, unless a program has looked at the engine's scheduler
//! ([`Door`](crate::door::Door)).

mod arrays;
pub(crate) mod block;
pub(crate) mod block_manager;
pub(crate) mod handle;
pub(crate) mod home;
pub(crate) mod layers;
pub(crate) mod model_inputs;
pub(crate) mod model_runner;
pub(crate) mod models;
mod objects;
mod pickle;
mod pool;
pub(crate) mod scheduler;
mod sequence;
mod step_arrays;
