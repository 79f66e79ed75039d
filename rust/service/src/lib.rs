//! The one loop for every caller of an engine.
//!
//! Requests come in and are aborted from any thread; each step's events go to whoever asked. Whichever caller waits drives the
//! engine meanwhile, or a thread of its own does ([`Service::drive`]); everybody else sleeps until there is mail.
//!
//! Locks are taken in one order: the engine's turn, then the post, under which nothing waits and no foreign code runs.

#![cfg_attr(test, allow(clippy::unwrap_used))] // tests

mod call;
mod driver;
mod error;
mod exclusive;
mod post;
mod request;
mod service;
mod text;

pub use call::Call;
pub use driver::{Driver, Pumped, Sink};
pub use error::ServiceError;
pub use exclusive::{Exclusive, Refusal, Turn};
pub use request::{Event, Request, Watch};
pub use service::{Progress, Service};
