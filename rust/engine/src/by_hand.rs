//! Stepping by hand: what a program needs that calls nano-vLLM's objects itself, as parity tests do, instead of
//! [`LlmEngine::step`](crate::LlmEngine::step).
//!
//! Such a program may set any field of a [`Sequence`](crate::Sequence) and call any method in any order. So each method
//! here that could break the scheduler's books checks its arguments whole before it changes anything, and then calls the method of the ordinary path, which
//! trusts its caller. The ordinary path calls nothing in this folder.

mod block_manager;
pub(crate) mod graphs;
mod llm_engine;
mod model_runner;
mod prepare;
mod scheduler;
pub(crate) mod sequence;
