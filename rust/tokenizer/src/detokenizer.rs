//! A stream of ids to a stream of text.

use std::sync::Arc;

use serde_json::json;
use tokenizers::DecoderWrapper;

use crate::byte_level;
use crate::error::Error;
use crate::gguf::SPACE;
use crate::tokenizer::Tokenizer;

/// How many tokens a decoder that is neither may hold back before their text is given out as it is. A character
/// takes at most four byte tokens; beyond that the bytes are simply not UTF-8.
const MAX_HELD: usize = 8;

/// Turns a stream of ids into text, holding back what may still change: the bytes of an unfinished character.
///
/// At a constant cost a token, the pieces join to what [`Tokenizer::decode`] gives for all the ids: exactly for byte-level
/// tokenizers, and for those in SentencePiece's style wherever the bytes are UTF-8. (There one byte that is not makes U+FFFD
/// of every byte around it, of characters too that have been given out.) Other decoders look at neighbouring tokens, so a
/// short window is decoded again for each token.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    /// Whether decoders that put spaces between tokens put them between added ones, too.
    spaces_between_special_tokens: bool,
    /// Whether the last token is an added one.
    is_after_added: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// For byte-level decoders, the bytes of an unfinished character, at most three.
    Bytes(Vec<u8>),
    /// In SentencePiece's style, the bytes of an unfinished character, and whether a space is still to be dropped.
    ByteFallback { held: Vec<u8>, strip: bool },
    /// For all others, the tokens of the last piece given out (`ids[..read]`), as context, and then those held back.
    Window { ids: Vec<u32>, read: usize },
}

impl Detokenizer {
    /// Begins a stream.
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Self {
        let state = match tokenizer.inner().get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => State::Bytes(Vec::new()),
            Some(decoder) if let Some(strip) = byte_fallback(decoder) => {
                State::ByteFallback { held: Vec::new(), strip }
            }
            _ => State::Window { ids: Vec::new(), read: 0 },
        };
        let spaces_between_special_tokens = true;
        Self { tokenizer, skip_special_tokens, spaces_between_special_tokens, is_after_added: false, state }
    }

    /// The same stream, in which an added token that follows another one has no space before it unless `spaces` is true: vLLM's
    /// `spaces_between_special_tokens`. It is of consequence to decoders that put spaces between tokens.
    #[must_use]
    pub fn with_spaces(self, spaces: bool) -> Self {
        Self { spaces_between_special_tokens: spaces, ..self }
    }

    /// Takes the next id and returns the text that is certain by now, often one token's, sometimes none.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id no token has, with the stream unchanged; [`Error::Tokenizer`] when the library
    /// cannot decode.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        let token = self.tokenizer.token(id)?;
        let added = self.tokenizer.inner().get_added_vocabulary();
        if self.skip_special_tokens && added.is_special_token(&token) {
            return Ok(String::new());
        }
        let is_added = added.get_vocab().contains_key(&token);
        let follows = std::mem::replace(&mut self.is_after_added, is_added);
        let mut piece = self.decode(id, &token)?;
        if follows && is_added && !self.spaces_between_special_tokens && piece.ends_with(&token) {
            let space = piece.len() - token.len();
            if piece[..space].ends_with(' ') {
                piece.remove(space - 1);
            }
        }
        Ok(piece)
    }

    fn decode(&mut self, id: u32, token: &str) -> Result<String, Error> {
        match &mut self.state {
            State::Bytes(held) => {
                byte_level::extend_with_token(held, token);
                Ok(take_complete(held))
            }
            State::ByteFallback { held, strip } => {
                let mut text = match byte_of(token) {
                    Some(byte) => {
                        held.push(byte);
                        take_complete(held)
                    }
                    None => String::from_utf8_lossy(&std::mem::take(held)).into_owned() + &token.replace(SPACE, " "),
                };
                if *strip && !text.is_empty() {
                    *strip = false;
                    if text.starts_with(' ') {
                        text.remove(0);
                    }
                }
                Ok(text)
            }
            State::Window { ids, read } => {
                ids.push(id);
                let before = self.tokenizer.decode(&ids[..*read], false)?;
                let after = self.tokenizer.decode(ids, false)?;
                let piece = added(&before, &after);
                let uncertain = piece.is_empty() || piece.ends_with(char::REPLACEMENT_CHARACTER);
                if uncertain && ids.len() - *read <= MAX_HELD {
                    return Ok(String::new());
                }
                let piece = piece.to_owned();
                ids.drain(..*read);
                *read = ids.len();
                Ok(piece)
            }
        }
    }

    /// Ends the stream and returns what was held back, unfinished characters as U+FFFD.
    pub fn finish(self) -> String {
        match self.state {
            State::Bytes(held) | State::ByteFallback { held, .. } => String::from_utf8_lossy(&held).into_owned(),
            State::Window { ids, read } => {
                // These ids were decoded when they came; the library does not fail on what it accepted before.
                let decode = |ids| self.tokenizer.decode(ids, false).unwrap_or_default();
                added(&decode(&ids[..read]), &decode(&ids)).to_owned()
            }
        }
    }
}

/// For the decoder of vocabularies in SentencePiece's style, whether it drops a space at the beginning; none for any other.
fn byte_fallback(decoder: &DecoderWrapper) -> Option<bool> {
    let json = serde_json::to_value(decoder).ok()?;
    let steps = json["decoders"].as_array()?;
    let replace = json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "});
    let usual = [replace, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    let rest = steps.strip_prefix(&usual[..])?;
    match rest {
        [] => Some(false),
        [strip] if *strip == json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}) => Some(true),
        _ => None,
    }
}

/// The byte that a token such as `<0x0A>` spells out.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// What `after` says beyond its common beginning with `before`.
fn added<'a>(before: &str, after: &'a str) -> &'a str {
    let common: usize = after.chars().zip(before.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    &after[common..]
}

/// Takes everything from `bytes` but an unfinished character at the end; what is not UTF-8 becomes U+FFFD.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let at_end = taken + chunk.invalid().len() == bytes.len();
        if chunk.invalid().is_empty() || (at_end && is_unfinished(chunk.invalid())) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        taken += chunk.invalid().len();
    }
    bytes.drain(..taken);
    text
}

/// Whether `bytes` can be the beginning of a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::take_complete;
    use proptest::prelude::*;

    proptest! {
        /// However the bytes are dealt out, the pieces join to the lossy decoding of the whole, and at most three
        /// bytes wait.
        #[test]
        fn streaming_is_lossy_decoding(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    any::<String>().prop_map(String::into_bytes),
                    any::<char>().prop_map(|c| c.to_string().into_bytes()),
                ],
                0..12,
            ),
            step in 1usize..7,
        ) {
            let bytes = parts.concat();
            let (mut held, mut text) = (Vec::new(), String::new());
            for chunk in bytes.chunks(step) {
                held.extend_from_slice(chunk);
                text.push_str(&take_complete(&mut held));
                prop_assert!(held.len() <= 3);
            }
            text.push_str(&String::from_utf8_lossy(&held));
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
