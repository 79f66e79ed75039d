//! Requests, which callers hand in, and events, which tell them what became of these.

use std::time::Duration;

use nanovllm_engine::{FinishedOutput, Pooling, SamplingParams, TokenLogprobs};

use crate::error::ServiceError;
use crate::text::TextOptions;

/// What a caller wants to hear of a request before it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watch {
    /// Nothing but how it ends.
    #[default]
    Result,
    /// Every token.
    Tokens,
    /// Every token, and its text.
    Text,
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
    /// The request handed in just before it that has the same prompt, which then need not be computed twice.
    pub twin_of: Option<u64>,
    /// How its prompt is embedded; nothing is then sampled.
    pub pooling: Option<Pooling>,
    /// The lower, the sooner it is computed; of equal ones the first to come.
    pub priority: i64,
    /// What the caller wants to hear of it.
    pub watch: Watch,
    /// How its text is made, and which text ends it.
    pub text: TextOptions,
}

impl Request {
    /// A request that is told nothing of but how it ends, and that no text ends.
    pub fn new(seq_id: u64, token_ids: Vec<u32>, params: SamplingParams) -> Self {
        Self {
            seq_id,
            token_ids,
            params,
            twin_of: None,
            pooling: None,
            priority: 0,
            watch: Watch::Result,
            text: TextOptions::default(),
        }
    }
}

/// When a request was where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// From when it was handed in to its first token; the same as `total` for one that got none.
    pub first_token: Duration,
    /// From when it was handed in to its end.
    pub total: Duration,
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
        /// How likely each was, where that was asked for.
        logprobs: Vec<TokenLogprobs>,
        /// The text that has become certain with them; `None` where text is not watched.
        text: Option<String>,
    },
    /// It has ended.
    Finished {
        /// Its result.
        output: FinishedOutput,
        /// The text that was not posted before, which is all of it where nobody watches; `None` where none was made.
        text: Option<String>,
        /// The stop string that ended it, if one did.
        stop: Option<String>,
        /// How long it took.
        timing: Timing,
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
