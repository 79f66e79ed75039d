//! What a request's options do to the logits of its next token, kept up to date from token to token.

use std::collections::HashMap;

use nanovllm_backend::{Penalties, SampleRow, Truncation};

use crate::sampling_params::SamplingParams;

/// The state of the options that depend on a sequence's tokens, and what else changes logits in the form that devices take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processors {
    /// What is added to logits: the request's own biases, then minus infinity for what must not come next.
    bias: Vec<(u32, f32)>,
    /// How many of these are the request's own.
    num_own: usize,
    /// Tokens that may not come before `min_tokens`.
    ends: Vec<u32>,
    /// The tokens that have penalties, with how often the answer has each.
    counts: Option<Counts>,
    /// Tokens that may be chosen, a bit each; empty for all.
    allowed: Vec<u32>,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    tokens: Vec<(u32, u32)>,
    places: HashMap<u32, usize>,
}

impl Counts {
    fn add(&mut self, token: u32, count: u32) {
        let place = *self.places.entry(token).or_insert_with(|| {
            self.tokens.push((token, 0));
            self.tokens.len() - 1
        });
        self.tokens[place].1 += count;
    }
}

impl Processors {
    /// Those of a request with this prompt and these tokens of its answer, whose sequences end at `eos`; `None` where no option
    /// changes a logit.
    pub(crate) fn new(params: &SamplingParams, prompt: &[u32], answer: &[u32], eos: &[u32]) -> Option<Box<Self>> {
        let counts_tokens =
            params.repetition_penalty != 1.0 || params.frequency_penalty != 0.0 || params.presence_penalty != 0.0;
        let has_end = params.min_tokens > 0;
        let is_needed = counts_tokens
            || has_end
            || !params.logit_bias.is_empty()
            || !params.allowed_token_ids.is_empty()
            || !params.bad_words.is_empty();
        if !is_needed {
            return None;
        }
        let mut this = Self { bias: params.logit_bias.clone(), num_own: params.logit_bias.len(), ..Self::default() };
        if has_end {
            this.ends.clone_from(&params.stop_token_ids);
            if !params.ignore_eos {
                this.ends.extend_from_slice(eos);
            }
        }
        if counts_tokens {
            let mut counts = Counts::default();
            // The other penalties are for tokens of the answer alone.
            let repeated = if params.repetition_penalty == 1.0 { &[] } else { prompt };
            for &token in repeated {
                counts.add(token, 0);
            }
            for &token in answer {
                counts.add(token, 1);
            }
            this.counts = Some(counts);
        }
        for &token in &params.allowed_token_ids {
            let word = token as usize / 32;
            if this.allowed.len() <= word {
                this.allowed.resize(word + 1, 0);
            }
            this.allowed[word] |= 1 << (token % 32);
        }
        this.forbid(params, answer);
        Some(Box::new(this))
    }

    /// Takes the newest token of `answer` in.
    pub(crate) fn advance(&mut self, params: &SamplingParams, answer: &[u32]) {
        if let (Some(counts), Some(&token)) = (&mut self.counts, answer.last()) {
            counts.add(token, 1);
        }
        self.forbid(params, answer);
    }

    /// Works out what must not follow `answer`.
    fn forbid(&mut self, params: &SamplingParams, answer: &[u32]) {
        self.bias.truncate(self.num_own);
        if answer.len() < params.min_tokens {
            self.bias.extend(self.ends.iter().map(|&token| (token, f32::NEG_INFINITY)));
        }
        for word in &params.bad_words {
            if let Some((&last, before)) = word.split_last()
                && answer.ends_with(before)
            {
                self.bias.push((last, f32::NEG_INFINITY));
            }
        }
    }

    /// What a device does to the logits before it chooses.
    pub(crate) fn apply<'a>(&'a self, params: &SamplingParams, row: SampleRow<'a>) -> SampleRow<'a> {
        SampleRow {
            bias: &self.bias,
            penalties: self.counts.as_ref().map(|counts| Penalties {
                repetition: params.repetition_penalty as f32,
                frequency: params.frequency_penalty as f32,
                presence: params.presence_penalty as f32,
                tokens: &counts.tokens,
            }),
            allowed: (!self.allowed.is_empty()).then_some(&self.allowed[..]),
            ..row
        }
    }
}

/// Which tokens may be drawn.
pub(crate) fn truncation(params: &SamplingParams) -> Truncation {
    // A share that float32 rounds to 0 still keeps a token, and one that it rounds to 1 all.
    let top_p = (params.top_p as f32).max(f32::MIN_POSITIVE);
    Truncation { top_k: params.top_k, top_p, min_p: params.min_p as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(processors: Option<&'a Processors>, params: &SamplingParams) -> SampleRow<'a> {
        processors.unwrap().apply(params, SampleRow::greedy())
    }

    #[test]
    fn requests_without_such_options_have_none() {
        assert!(Processors::new(&SamplingParams::default(), &[1], &[], &[2]).is_none());
        let stops = SamplingParams { stop_token_ids: vec![1], top_k: 3, ..Default::default() };
        assert!(Processors::new(&stops, &[1], &[], &[2]).is_none());
    }

    #[test]
    fn tokens_are_counted_as_they_come() {
        let params = SamplingParams { repetition_penalty: 1.5, presence_penalty: 0.5, ..Default::default() };
        let mut processors = Processors::new(&params, &[5, 6, 5], &[6], &[]).unwrap();
        processors.advance(&params, &[6, 9]);
        processors.advance(&params, &[6, 9, 9]);
        let penalties = row(Some(&processors), &params).penalties.unwrap();
        assert_eq!(penalties.tokens, [(5, 0), (6, 1), (9, 2)]);
        assert_eq!((penalties.repetition, penalties.presence, penalties.frequency), (1.5, 0.5, 0.0));
        // Without a repetition penalty the prompt does not count.
        let params = SamplingParams { frequency_penalty: 1.0, ..Default::default() };
        let processors = Processors::new(&params, &[5, 6], &[], &[]).unwrap();
        assert!(row(Some(&processors), &params).penalties.unwrap().tokens.is_empty());
    }

    #[test]
    fn ends_are_ruled_out_until_there_are_enough_tokens() {
        let ruled_out = |ignore_eos, answer: &[u32]| {
            let params = SamplingParams {
                min_tokens: 2,
                stop_token_ids: vec![7],
                ignore_eos,
                logit_bias: vec![(3, 1.5)],
                ..Default::default()
            };
            let mut processors = Processors::new(&params, &[1], &[], &[2]).unwrap();
            (1..=answer.len()).for_each(|n| processors.advance(&params, &answer[..n]));
            row(Some(&processors), &params).bias.to_vec()
        };
        let never = f32::NEG_INFINITY;
        assert_eq!(ruled_out(false, &[]), [(3, 1.5), (7, never), (2, never)]);
        assert_eq!(ruled_out(true, &[4]), [(3, 1.5), (7, never)]);
        assert_eq!(ruled_out(false, &[4, 4]), [(3, 1.5)]);
    }

    #[test]
    fn the_last_token_of_a_bad_word_must_not_complete_it() {
        let params = SamplingParams { bad_words: vec![vec![4], vec![1, 2, 3], vec![]], ..Default::default() };
        let mut processors = Processors::new(&params, &[1, 2], &[], &[]).unwrap();
        // The prompt does not count.
        for (answer, ruled_out) in
            [(vec![], vec![4]), (vec![1], vec![4]), (vec![1, 2], vec![4, 3]), (vec![1, 2, 2], vec![4])]
        {
            if !answer.is_empty() {
                processors.advance(&params, &answer);
            }
            let bias = row(Some(&processors), &params).bias.iter().map(|&(token, _)| token);
            assert!(bias.eq(ruled_out.iter().copied()), "{answer:?}");
        }
    }

    #[test]
    fn allowed_tokens_are_bits() {
        let params = SamplingParams { allowed_token_ids: vec![70, 1, 31], ..Default::default() };
        let processors = Processors::new(&params, &[1], &[], &[]).unwrap();
        assert_eq!(row(Some(&processors), &params).allowed, Some(&[1 << 1 | 1 << 31, 0, 1 << 6][..]));
    }
}
