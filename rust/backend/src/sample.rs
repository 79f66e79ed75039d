//! Sampling as plain data: options live in the engine, the backend executes.

/// How to choose the next token from one row of logits.
///
/// The noise is counter-based: the exponential variate of a token depends on (`key`, `position`, token id) alone, so a
/// sample does not depend on the batch it was drawn in nor on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRow {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Identifies the request's random stream (the seed and the request's number, mixed).
    pub key: u64,
    /// Position of the token to be chosen in its sequence.
    pub position: u64,
}
