//! What operations on rows are told beside the matrices.

/// The function of the gates in a gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `g * sigmoid(g)`, which is `g / (1 + exp(-g))`.
    Silu,
    /// `g / 2 * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 * g^3)))`, the approximation of GELU by a hyperbolic tangent
    /// (Hendrycks and Gimpel 2016).
    GeluTanh,
    /// `g * sigmoid(1.702 g)` of gates of at most 7, and the values it is multiplied by are held between -7 and 7 and raised by
    /// 1 before (gpt-oss).
    SwigluOai,
}

impl Activation {
    /// What [`SwigluOai`](Self::SwigluOai) multiplies gates by within the sigmoid.
    pub const SWIGLU_OAI_ALPHA: f32 = 1.702;
    /// The most that its gates and values count for.
    pub const SWIGLU_OAI_LIMIT: f32 = 7.0;
}

/// What the rows of a matrix are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale<'a> {
    /// All by the same number.
    All(f32),
    /// Each by its own, `[rows]`.
    Rows(&'a [f32]),
}

impl Scale<'_> {
    /// The factor of a row.
    pub fn of(&self, row: usize) -> f32 {
        match self {
            Self::All(factor) => *factor,
            Self::Rows(factors) => factors[row],
        }
    }
}
