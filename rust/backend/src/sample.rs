//! Sampling as plain data: a request's options live in the engine, and reach a device as one of these a row.

use crate::logprobs::TokenLogprobs;
use crate::noise::NoiseStream;
use crate::penalties::Penalties;
use crate::truncation::Truncation;

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
    /// What is added to the logits of some tokens before anything else; minus infinity rules one out.
    pub bias: &'a [(u32, f32)],
    /// What is done to the logits of tokens that the sequence has, after that.
    pub penalties: Option<Penalties<'a>>,
    /// Tokens that may be chosen, a bit each from the lowest of the first word on, `[vocab_size / 32]` rounded up; the
    /// logits of the others become minus infinity.
    pub allowed: Option<&'a [u32]>,
    /// Which tokens may be drawn, by their logits; nothing to a greedy choice.
    pub truncation: Truncation,
    /// The token that follows, where it is known: nothing is chosen then.
    pub given: Option<u32>,
    /// Whether to say how likely the token is, and of how many of the likeliest ones.
    pub logprobs: Option<u32>,
}

/// The token that follows a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// How likely it is, where that was asked for.
    pub logprobs: Option<Box<TokenLogprobs>>,
}

impl From<u32> for Sampled {
    fn from(token: u32) -> Self {
        Self { token, logprobs: None }
    }
}

impl SampleRow<'_> {
    /// The likeliest token of the logits as they are.
    pub fn greedy() -> Self {
        Self::drawn(0.0, 0, 0)
    }

    /// A token drawn at `temperature` from the random stream of (`key`, `position`); greedy at 0.
    pub fn drawn(temperature: f32, key: u64, position: u64) -> Self {
        Self {
            temperature,
            key,
            position,
            bias: &[],
            penalties: None,
            allowed: None,
            truncation: Truncation::default(),
            given: None,
            logprobs: None,
        }
    }

    /// Whether [`adjust`](Self::adjust) may change a logit.
    pub fn adjusts(&self) -> bool {
        !self.bias.is_empty() || self.penalties.is_some() || self.allowed.is_some()
    }

    /// Applies `bias`, `penalties` and `allowed` to a row of logits: what every device does before it chooses. Tokens past the end of
    /// the row are passed over, and one past the end of `allowed` is ruled out. Something must be left: where every logit is
    /// minus infinity the lowest token is chosen, allowed or not.
    pub fn adjust(&self, logits: &mut [f32]) {
        for &(token, bias) in self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if let Some(penalties) = &self.penalties {
            penalties.apply(logits);
        }
        if let Some(allowed) = self.allowed {
            let words = allowed.iter().copied().chain(std::iter::repeat(0));
            for (word, logits) in words.zip(logits.chunks_mut(32)) {
                match word {
                    0 => logits.fill(f32::NEG_INFINITY),
                    u32::MAX => {}
                    _ => mask(word, logits),
                }
            }
        }
    }

    /// Chooses a token as [`Backend::sample`](crate::Backend::sample) says, in plain Rust: what a device without kernels of
    /// its own does with the logits on the host.
    ///
    /// A temperature that is not above 0 is greedy. Where the largest logit over the temperature is not finite there is
    /// nothing to draw, and the choice is greedy too.
    pub fn choose(&self, logits: &mut [f32]) -> Sampled {
        let raw = self.logprobs.map(|top| (top, logits.to_vec()));
        let token = self.given.unwrap_or_else(|| {
            self.adjust(logits);
            self.draw(logits)
        });
        Sampled { token, logprobs: raw.map(|(top, logits)| Box::new(TokenLogprobs::of(&logits, token, top))) }
    }

    fn draw(&self, logits: &[f32]) -> u32 {
        let Some((top, largest)) = arg_max(logits) else { return 0 };
        if !(self.temperature > 0.0 && (largest / self.temperature).is_finite()) {
            return top;
        }
        if self.truncation.is_on() {
            let survivors = self.truncation.survivors(logits, self.temperature);
            return self.winner(survivors.into_iter().map(|token| (token, logits[token as usize])), (top, largest));
        }
        self.winner((0..).zip(logits.iter().copied()), (top, largest))
    }

    /// The token of the highest [score](NoiseStream::score) among these tokens and logits, of which `top` is the likeliest.
    pub fn winner(&self, tokens: impl Iterator<Item = (u32, f32)>, (top, largest): (u32, f32)) -> u32 {
        let stream = NoiseStream::new(self.key, self.position);
        let most = -NoiseStream::LEAST.ln();
        let (mut winner, mut best) = (top, stream.score(top, largest, self.temperature));
        for (token, logit) in tokens {
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

/// Rules out at most 32 tokens, but those whose bit is set.
fn mask(word: u32, logits: &mut [f32]) {
    const BITS: [u32; 32] = {
        let (mut bits, mut i) = ([0; 32], 0);
        while i < 32 {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    // Without a branch, which would be guessed wrong half of the time, and in a form that compilers make vectors of.
    for (bit, logit) in BITS.iter().zip(logits) {
        let keep = if word & bit == 0 { 0 } else { u32::MAX };
        *logit = f32::from_bits(logit.to_bits() & keep | f32::NEG_INFINITY.to_bits() & !keep);
    }
}
