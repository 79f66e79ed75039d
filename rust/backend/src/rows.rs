//! What operations on rows are told beside the matrices.

/// The function of the gates in a gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `g * sigmoid(g)`, which is `g / (1 + exp(-g))`.
    Silu,
    /// `g / 2 * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 * g^3)))`, the approximation of GELU by a hyperbolic tangent
    /// (Hendrycks and Gimpel 2016).
    GeluTanh,
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
