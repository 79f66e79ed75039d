//! What a caller says about a chat besides its messages.

/// How a chat is rendered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatOptions {
    /// Whether the prompt ends with the header of the answer, so that the model goes on with the answer itself.
    pub add_generation_prompt: bool,
    /// Functions that the model may call, as JSON schemas; the template's variable `tools`, which is none without them.
    pub tools: Option<serde_json::Value>,
    /// Texts to answer from; the template's variable `documents`, which is none without them.
    pub documents: Option<serde_json::Value>,
    /// The name of one of the model's templates, or the source of a template, to be used instead of the default.
    pub template: Option<String>,
    /// Further template variables, `enable_thinking` for one. They may replace a special token (`bos_token`), but not
    /// the four variables above.
    pub extra: serde_json::Map<String, serde_json::Value>,
}
