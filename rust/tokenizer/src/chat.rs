//! Chat templates: which one a chat uses, and how it is rendered.
//!
//! The environment is the one transformers sets up (`utils/chat_template_utils.py`): Jinja2 with `trim_blocks` and
//! `lstrip_blocks`, loop controls, Python's string and dict methods, `raise_exception`, `strftime_now` and a `tojson`
//! that is `json.dumps`. What minijinja has otherwise is in `filters.rs`, `methods.rs`, `python.rs` and `repr.rs`. Templates
//! come from strangers, so one runs on a thread of its own, with limits on its size, depth, time and memory (`limits.rs`).

mod bounded;
mod clock;
mod environment;
mod filters;
mod generation_tags;
mod json;
mod limits;
mod methods;
mod options;
mod program;
mod python;
mod repr;
mod source;
mod templates;
mod worker;

pub(crate) use limits::MAX_SOURCE;
pub use options::ChatOptions;
pub(crate) use templates::{ChatTemplates, DEFAULT};
pub(crate) use worker::{render, variables};
