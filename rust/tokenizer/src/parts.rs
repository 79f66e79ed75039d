//! What a tokenizer consists of, whichever files it came from.

use tokenizers::Tokenizer as HfTokenizer;

use crate::chat::ChatTemplates;
use crate::settings::Settings;
use crate::special::SpecialTokens;

/// What [`directory`](crate::directory) and [`gguf`](crate::gguf) load and [`gguf_export`](crate::gguf_export) writes.
pub(crate) struct Parts {
    /// The `tokenizers` library's tokenizer: vocabulary, added tokens, normaliser, pre-tokenizer and the rest.
    pub(crate) tokenizer: HfTokenizer,
    pub(crate) special: SpecialTokens,
    pub(crate) templates: ChatTemplates,
    pub(crate) settings: Settings,
}
