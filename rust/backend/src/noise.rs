//! The noise of sampling, defined once so that every device draws the same tokens, however it computes them.
//!
//! Adding Gumbel noise to logits and taking the arg-max samples their softmax (Gumbel 1954; Maddison et al. 2014); here as
//! `logit / temperature - ln(E)` with exponential `E`, nano-vLLM's own draw.

/// The random stream from which one token is drawn: each token of the vocabulary has a uniform variate in it, a hash of
/// its id and these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoiseStream {
    /// Added to the token's id before the first round of the hash.
    pub low: u32,
    /// Mixed in between the rounds of the hash.
    pub high: u32,
}

impl NoiseStream {
    /// The lower bound of the exponential variate, nano-vLLM's own.
    pub const LEAST: f64 = 1e-10;

    /// The stream from which the token at `position` of the request with this `key` is drawn.
    pub fn new(key: u64, position: u64) -> Self {
        let mixed = splitmix(splitmix(key).wrapping_add(position));
        Self { low: mixed as u32, high: (mixed >> 32) as u32 }
    }

    /// The 32 random bits of a token.
    ///
    /// Multiply and xor-shift rounds with constants of Wellons' `triple32`, the stream entering before the first round and
    /// between the rounds, so that two streams are not one stream with its tokens renumbered.
    pub fn bits(self, token: u32) -> u32 {
        let mut x = token.wrapping_add(self.low);
        x ^= x >> 17;
        x = x.wrapping_mul(0xed5a_d4bb);
        x ^= x >> 11;
        x = x.wrapping_mul(0xac4c_1b51) ^ self.high;
        x ^= x >> 15;
        x = x.wrapping_mul(0x3184_8bab);
        x ^ (x >> 14)
    }

    /// The exponential variate `E` of a token, at least [`LEAST`](Self::LEAST). In f64: as f32, uniform variates near 1
    /// would become 1 and their `E` infinite.
    pub fn exponential(self, token: u32) -> f64 {
        let uniform = (f64::from(self.bits(token)) + 0.5) * 2f64.powi(-32);
        (-(-uniform).ln_1p()).max(Self::LEAST)
    }

    /// What the choice maximises over tokens: `logit / temperature - ln(E)`.
    pub fn score(self, token: u32, logit: f32, temperature: f32) -> f64 {
        f64::from(logit / temperature) - self.exponential(token).ln()
    }
}

/// Steele, Lea and Flood's `SplitMix64` output function, one step on.
fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
