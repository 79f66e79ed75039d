//! Requests, which callers hand in, and events, which tell them what became of these.

use nanovllm_engine::{FinishedOutput, SamplingParams};

use crate::error::ServiceError;

/// What a caller wants to hear of a request before it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watch {
    /// Nothing but how it ends.
    #[default]
    Result,
    /// Every token.
    Tokens,
    /// Every token, and its text.
    Text {
        /// Leave special tokens out of the text.
        skip_special_tokens: bool,
    },
}

/// One prompt to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The caller's name for it; no other request that has not ended may have the same.
    pub seq_id: u64,
    /// The prompt.
    pub token_ids: Vec<u32>,
    /// How it samples.
    pub params: SamplingParams,
    /// What the caller wants to hear of it.
    pub watch: Watch,
}

/// News of a request.
#[derive(Debug, Clone)]
pub enum Event {
    /// It got tokens. Posted only for requests that are watched.
    Tokens {
        /// The request.
        seq_id: u64,
        /// The new tokens, in order.
        token_ids: Vec<u32>,
        /// The text that has become certain with them; `None` where text is not watched.
        text: Option<String>,
    },
    /// It has ended.
    Finished {
        /// Its result.
        output: FinishedOutput,
        /// The text that was held back until now; `None` where text is not watched.
        text: Option<String>,
    },
    /// It will not end by itself: it was refused, aborted by somebody else, or its step failed.
    Failed {
        /// The request.
        seq_id: u64,
        /// Why it ends.
        error: ServiceError,
    },
}

impl Event {
    /// The request.
    pub fn seq_id(&self) -> u64 {
        match self {
            Self::Tokens { seq_id, .. } | Self::Failed { seq_id, .. } => *seq_id,
            Self::Finished { output, .. } => output.seq_id,
        }
    }

    /// Whether it is the last of its request.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Tokens { .. })
    }
}
