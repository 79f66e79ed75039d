//! Chat templates: which one a chat uses, and how it is rendered.
//!
//! The environment is the one transformers sets up (`utils/chat_template_utils.py`): Jinja2 with `trim_blocks` and
//! `lstrip_blocks`, loop controls, Python's string and dict methods, `raise_exception`, `strftime_now` and a `tojson`
//! that is `json.dumps`.

mod clock;
mod environment;
mod generation_tags;
mod json;
mod options;
mod templates;

pub(crate) use environment::render;
pub use options::ChatOptions;
pub(crate) use templates::{ChatTemplates, DEFAULT};
