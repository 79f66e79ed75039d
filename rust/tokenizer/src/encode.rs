//! Encoding with transformers' options: pairs of texts, and truncation.
//!
//! Each text is encoded by itself; then, as the `tokenizers` library does it, both are cut and the post-processor joins
//! them. The library's own way to cut is a state of its tokenizer, which callers share.

use tokenizers::{
    Encoding, PostProcessor, Tokenizer as HfTokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use crate::error::Error;
use crate::settings::Side;

/// Which text of a pair loses tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The longer one, until both are equally long, then both.
    LongestFirst,
    /// The first.
    OnlyFirst,
    /// The second.
    OnlySecond,
}

/// How a sequence that is too long becomes shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// The most tokens of a sequence, those included that are put around and between its texts.
    pub max_length: usize,
    /// Which text loses tokens.
    pub cut: Cut,
    /// On which side.
    pub side: Side,
}

/// A sequence of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded(Encoding);

impl Encoded {
    /// The ids.
    pub fn ids(&self) -> &[u32] {
        self.0.get_ids()
    }

    /// For each token which text it belongs to, as the post-processor numbers them.
    pub fn type_ids(&self) -> &[u32] {
        self.0.get_type_ids()
    }
}

/// The ids of `text`, followed by those of `pair`.
pub(crate) fn encode(
    tokenizer: &HfTokenizer,
    text: &str,
    pair: Option<&str>,
    add_special_tokens: bool,
    truncation: Option<Truncation>,
) -> Result<Encoded, Error> {
    let fail = |error: tokenizers::Error| Error::Tokenizer(error.to_string());
    let alone = |text: &str| tokenizer.encode_fast(text, false).map_err(fail);
    let (mut text, mut pair) = (alone(text)?, pair.map(alone).transpose()?);
    let post_processor = tokenizer.get_post_processor();
    if let Some(Truncation { max_length, cut, side }) = truncation {
        let added = if add_special_tokens { post_processor.map_or(0, |p| p.added_tokens(pair.is_some())) } else { 0 };
        let refuse = |reason: String| Error::Truncation { max_length, reason };
        let params = TruncationParams {
            max_length: max_length
                .checked_sub(added)
                .ok_or_else(|| refuse(format!("the special tokens of a sequence alone are {added}")))?,
            strategy: match cut {
                Cut::LongestFirst => TruncationStrategy::LongestFirst,
                Cut::OnlyFirst => TruncationStrategy::OnlyFirst,
                Cut::OnlySecond => TruncationStrategy::OnlySecond,
            },
            direction: match side {
                Side::Left => TruncationDirection::Left,
                Side::Right => TruncationDirection::Right,
            },
            stride: 0,
        };
        let reason = match (cut, &pair) {
            (Cut::OnlySecond, None) => "there is no second text that could be cut",
            _ => "the text that may be cut is too short for it",
        };
        (text, pair) = truncate_encodings(text, pair, &params).map_err(|_| refuse(reason.to_owned()))?;
        // What was cut off stays in the encoding, for `stride`; the post-processor would work on all of it.
        text.take_overflowing();
        if let Some(pair) = &mut pair {
            pair.take_overflowing();
        }
    }
    let joined = if let Some(processor) = post_processor {
        processor.process(text, pair, add_special_tokens).map_err(fail)?
    } else {
        if let Some(pair) = &mut pair {
            pair.set_type_ids(vec![1; pair.len()]);
        }
        Encoding::merge([Some(text), pair].into_iter().flatten(), false)
    };
    Ok(Encoded(joined))
}
