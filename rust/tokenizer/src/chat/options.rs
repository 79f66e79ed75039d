//! What a caller says about a chat beside its messages.

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
