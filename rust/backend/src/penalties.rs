//! Penalties on tokens that a sequence has already.

/// What makes tokens of a sequence less likely to come again, or more likely.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties<'a> {
    /// Divides logits above 0 and multiplies those below, of tokens of the prompt and of the answer (Keskar et al. 2019); 1 for
    /// none. Above 0.
    pub repetition: f32,
    /// Subtracted from a token's logit as often as the answer has the token.
    pub frequency: f32,
    /// Subtracted once from the logits of tokens that the answer has.
    pub presence: f32,
    /// The tokens of prompt and answer, each once, with how often the answer has it: 0 for one of the prompt alone.
    pub tokens: &'a [(u32, u32)],
}

impl Penalties<'_> {
    /// Changes the logits of the sequence's tokens, the repetition first; tokens past the end of `logits` are passed over.
    pub fn apply(&self, logits: &mut [f32]) {
        for &(token, count) in self.tokens {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / self.repetition } else { *logit * self.repetition };
            if count > 0 {
                *logit -= self.frequency * count as f32;
                *logit -= self.presence;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_prompt_are_repeated_and_those_of_the_answer_counted() {
        let tokens = [(0, 0), (1, 1), (3, 4), (9, 1)];
        let penalties = Penalties { repetition: 2.0, frequency: 0.5, presence: 0.25, tokens: &tokens };
        let mut logits = [4.0, -1.0, 8.0, 3.0, f32::NEG_INFINITY];
        penalties.apply(&mut logits);
        assert_eq!(logits, [2.0, -2.75, 8.0, -0.75, f32::NEG_INFINITY]);
    }
}
