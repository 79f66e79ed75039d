//! Sampling as plain data: a request's options live in the engine, and reach a device as one of these a row.

use crate::noise::NoiseStream;

/// How to choose the token that follows one row of logits.
///
/// The noise is counter-based: the exponential variate of a token depends on (`key`, `position`, token id) alone, so a
/// sample does not depend on the batch it was drawn in nor on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRow<'a> {
    /// What logits are divided by before the draw; 0 is greedy.
    pub temperature: f32,
    /// Which random stream is the request's: its seed and number, mixed.
    pub key: u64,
    /// The position in its sequence that the chosen token will have.
    pub position: u64,
    /// What is added to the logits before anything else, `[vocab_size]`.
    pub bias: Option<&'a [f32]>,
    /// Tokens that may be chosen, a bit each from the lowest of the first word on, `[vocab_size / 32]` rounded up; the
    /// logits of the others become minus infinity.
    pub allowed: Option<&'a [u32]>,
}

impl<'a> SampleRow<'a> {
    /// The likeliest token, without bias or mask.
    pub fn greedy() -> Self {
        Self::drawn(0.0, 0, 0)
    }

    /// A token drawn at `temperature` from the random stream of (`key`, `position`); greedy at 0.
    pub fn drawn(temperature: f32, key: u64, position: u64) -> Self {
        Self { temperature, key, position, bias: None, allowed: None }
    }

    /// The same with `bias` added to the logits.
    #[must_use]
    pub fn with_bias(self, bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The same with the tokens whose bit is not set in `allowed` ruled out.
    #[must_use]
    pub fn with_allowed(self, allowed: &'a [u32]) -> Self {
        Self { allowed: Some(allowed), ..self }
    }

    /// Applies `bias` and `allowed` to a row of logits: what every device does before it chooses. A token past the end
    /// of `bias` keeps its logit, one past the end of `allowed` is ruled out. A mask must leave something: where every
    /// logit is minus infinity the lowest token is chosen, allowed or not.
    pub fn adjust(&self, logits: &mut [f32]) {
        if let Some(bias) = self.bias {
            logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
        }
        if let Some(allowed) = self.allowed {
            let is_allowed = |token: usize| allowed.get(token / 32).is_some_and(|bits| bits >> (token % 32) & 1 == 1);
            for (token, logit) in logits.iter_mut().enumerate() {
                if !is_allowed(token) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Chooses a token as [`Backend::sample`](crate::Backend::sample) says, in plain Rust: what a device without kernels of
    /// its own does with the logits on the host.
    ///
    /// A temperature that is not above 0 is greedy. Where the largest logit over the temperature is not finite there is
    /// nothing to draw, and the choice is greedy too.
    pub fn choose(&self, logits: &mut [f32]) -> u32 {
        self.adjust(logits);
        let Some((top, largest)) = arg_max(logits) else { return 0 };
        if !(self.temperature > 0.0 && (largest / self.temperature).is_finite()) {
            return top;
        }
        let stream = NoiseStream::new(self.key, self.position);
        let most = -NoiseStream::LEAST.ln();
        let (mut winner, mut best) = (top, stream.score(top, largest, self.temperature));
        for (token, &logit) in (0..).zip(logits.iter()) {
            // The noise need not be known of a token that the most there is could not save; NaN ends here as well.
            if f64::from(logit / self.temperature) + most >= best {
                let score = stream.score(token, logit, self.temperature);
                if score > best || (score == best && token < winner) {
                    (winner, best) = (token, score);
                }
            }
        }
        winner
    }
}

/// The lowest index of the largest logit, and that logit; NaN aside.
fn arg_max(logits: &[f32]) -> Option<(u32, f32)> {
    let numbers = (0..).zip(logits.iter().copied()).filter(|(_, logit)| !logit.is_nan());
    numbers.reduce(|best, next| if next.1 > best.1 { next } else { best })
}
