//! Chat templates: which one, and how it is rendered.
//!
//! The environment is the one transformers sets up (`utils/chat_template_utils.py`): Jinja2 with `trim_blocks` and
//! `lstrip_blocks`, loop controls, Python's string and dict methods, `raise_exception`, `strftime_now` and a `tojson`
//! that is `json.dumps`.

mod clock;
mod environment;
mod json;
mod source;
mod templates;

pub(crate) use environment::render;
pub(crate) use templates::ChatTemplates;

/// How a chat is rendered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatOptions {
    /// Ends the prompt with the header of the answer.
    pub add_generation_prompt: bool,
    /// Functions the model may call, as JSON schemas; the template sees `tools`, none without.
    pub tools: Option<serde_json::Value>,
    /// Texts to answer from; the template sees `documents`, none without.
    pub documents: Option<serde_json::Value>,
    /// Instead of the model's default template: the name of another one it has, or the source of one.
    pub template: Option<String>,
    /// Further template variables, `enable_thinking` for one. They may replace a special token (`bos_token`), but not
    /// the four variables above.
    pub extra: serde_json::Map<String, serde_json::Value>,
}
