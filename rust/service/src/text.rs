//! Text for callers that watch it, made of the tokens in the engine's events.

use std::collections::HashMap;
use std::sync::Arc;

use nanovllm_tokenizer::{Detokenizer, Tokenizer};

/// A stream of text for each request whose text is watched.
#[derive(Default)]
pub(crate) struct Texts {
    tokenizer: Option<Arc<Tokenizer>>,
    streams: HashMap<u64, Detokenizer>,
}

impl Texts {
    /// Streams over this tokenizer's vocabulary; without one there is no text.
    pub(crate) fn new(tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { tokenizer, streams: HashMap::new() }
    }

    pub(crate) fn begin(&mut self, seq_id: u64, skip_special_tokens: bool) {
        if let Some(tokenizer) = &self.tokenizer {
            self.streams.insert(seq_id, Detokenizer::new(Arc::clone(tokenizer), skip_special_tokens));
        }
    }

    /// The text that has become certain with these tokens; `None` where it is not watched.
    pub(crate) fn push(&mut self, seq_id: u64, token_ids: &[u32]) -> Option<String> {
        let stream = self.streams.get_mut(&seq_id)?;
        // An id no token has adds nothing: models pad their vocabulary, and may choose such an id.
        Some(token_ids.iter().filter_map(|&id| stream.push(id).ok()).collect())
    }

    /// Ends a stream: the text that was held back.
    pub(crate) fn finish(&mut self, seq_id: u64) -> Option<String> {
        self.streams.remove(&seq_id).map(Detokenizer::finish)
    }
}
