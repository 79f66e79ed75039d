//! Text of requests, made of the tokens in the engine's events, up to the first stop string.

mod stop;

use std::collections::HashMap;
use std::sync::Arc;

use nanovllm_tokenizer::{Detokenizer, Tokenizer};

use self::stop::StopStrings;

/// How a request's text is made of its tokens, and where it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Leave special tokens out of the text.
    pub skip_special_tokens: bool,
    /// Leave out the spaces that some decoders put between added tokens.
    pub no_spaces_between_special_tokens: bool,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Whether the text has the one that ended it, or the token that its request stops at.
    pub include_stop_str_in_output: bool,
}

/// What tokens have added to a request's text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    /// The text that can be handed out now; `None` where nobody watches it.
    pub(crate) text: Option<String>,
    /// The stop string that ends the answer, and how many of the tokens it took.
    pub(crate) stop: Option<(String, usize)>,
}

/// The text of one request, as far as it was not handed out.
struct Stream {
    /// `None` once a stop string was found.
    detokenizer: Option<Detokenizer>,
    stop: StopStrings,
    /// Whether text is handed out as it comes.
    is_watched: bool,
    held: String,
    /// Tokens whose text must not end the answer.
    exempt: usize,
}

/// A stream of text for each request whose text is watched or may end it.
#[derive(Default)]
pub(crate) struct Texts {
    tokenizer: Option<Arc<Tokenizer>>,
    streams: HashMap<u64, Stream>,
}

impl Texts {
    /// Streams over this tokenizer's vocabulary; without one there is no text.
    pub(crate) fn new(tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { tokenizer, streams: HashMap::new() }
    }

    /// Begins the text of a request, unless nobody wants it. Its first `min_tokens` tokens do not end it.
    pub(crate) fn begin(&mut self, seq_id: u64, options: TextOptions, is_watched: bool, min_tokens: usize) {
        if let Some(tokenizer) = &self.tokenizer
            && (is_watched || !options.stop.is_empty() || options.no_spaces_between_special_tokens)
        {
            let detokenizer = Detokenizer::new(Arc::clone(tokenizer), options.skip_special_tokens)
                .with_spaces(!options.no_spaces_between_special_tokens);
            let stream = Stream {
                detokenizer: Some(detokenizer),
                stop: StopStrings::new(options.stop, options.include_stop_str_in_output),
                is_watched,
                held: String::new(),
                exempt: min_tokens,
            };
            self.streams.insert(seq_id, stream);
        }
    }

    /// Drops the text of requests that are no more.
    pub(crate) fn retain(&mut self, is_alive: impl Fn(u64) -> bool) {
        self.streams.retain(|&seq_id, _| is_alive(seq_id));
    }

    /// Takes tokens in. The last of them may be one that its request stops at, which the text has only if it has stop strings.
    pub(crate) fn push(&mut self, seq_id: u64, token_ids: &[u32], is_last_named: bool) -> Added {
        let Some(stream) = self.streams.get_mut(&seq_id) else { return Added::default() };
        let dropped = usize::from(is_last_named && !stream.stop.is_included());
        stream.push(&token_ids[..token_ids.len().saturating_sub(dropped)])
    }

    /// Ends a stream: the text that was not handed out, and the stop string that the last of it has brought.
    pub(crate) fn finish(&mut self, seq_id: u64) -> (Option<String>, Option<String>) {
        self.streams.remove(&seq_id).map(Stream::finish).unwrap_or_default()
    }
}

impl Stream {
    fn push(&mut self, token_ids: &[u32]) -> Added {
        let mut stop = None;
        for (i, &id) in token_ids.iter().enumerate() {
            let Some(detokenizer) = &mut self.detokenizer else { break };
            // An id no token has adds nothing: models pad their vocabulary, and may choose such an id.
            let text = detokenizer.push(id).unwrap_or_default();
            let is_exempt = self.exempt > 0;
            self.exempt = self.exempt.saturating_sub(1);
            if let Some(found) = self.add(&text, is_exempt) {
                self.detokenizer = None;
                stop = Some((found, i + 1));
            }
        }
        let keep = if self.detokenizer.is_some() { self.stop.begun_in(&self.held) } else { 0 };
        let text = self.is_watched.then(|| {
            let rest = self.held.split_off(self.held.len() - keep);
            std::mem::replace(&mut self.held, rest)
        });
        Added { text, stop }
    }

    /// Appends text, and cuts all off where a stop string ends it, which is returned.
    fn add(&mut self, text: &str, is_exempt: bool) -> Option<String> {
        let before = self.held.len();
        self.held.push_str(text);
        if is_exempt {
            return None;
        }
        let (end, found) = self.stop.find(&self.held, before)?;
        self.held.truncate(end);
        Some(found)
    }

    fn finish(mut self) -> (Option<String>, Option<String>) {
        let rest = self.detokenizer.take().map(Detokenizer::finish).unwrap_or_default();
        let is_exempt = self.exempt > 0;
        let stop = self.add(&rest, is_exempt);
        (Some(self.held), stop)
    }
}

#[cfg(test)]
mod tests;
